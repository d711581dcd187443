"""The page on sharding has the table that was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_equal_trainings_is_up_to_date() -> None:
    script = ROOT / "scripts" / "equality_table.py"
    spec = importlib.util.spec_from_file_location("equality_table", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = json.loads(module.MEASURED.read_text())
    assert module.table(measured) in module.PAGE.read_text(), (
        "Run: python scripts/equality_table.py"
    )
