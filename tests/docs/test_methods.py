"""The page of the methods has the table that the code makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_up_to_date() -> None:
    script = ROOT / "scripts" / "methods_table.py"
    spec = importlib.util.spec_from_file_location("methods_table", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "methods.md").read_text()
    assert module.table() in page, "Run: python scripts/methods_table.py"
