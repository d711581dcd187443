"""The page of the methods has the tables that the code makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from harness.testing.matrix import COLUMNS, matrix_of
from harness.testing.outcomes import read_outcomes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_up_to_date() -> None:
    table = load("methods_table").table()
    assert table in PAGE.read_text(), "Run: python scripts/methods_table.py"


def test_the_matrix_shows_the_outcomes_that_are_expected() -> None:
    stored = json.loads((ROOT / "results" / "matrix.json").read_text())
    outcomes = read_outcomes(ROOT / "tests" / "harness" / "testing" / "expected.json")
    rows = [row.model_dump() for row in matrix_of(outcomes)]
    assert stored["rows"] == rows, "Run: python scripts/methods_matrix.py"
    assert len(rows) == 3 * len(outcomes)
    assert all(set(row["abilities"]) == set(COLUMNS) for row in rows)
    table = load("methods_matrix").matrix(stored)
    assert table in PAGE.read_text(), "Run: python scripts/methods_matrix.py"
    assert "| 0 |" not in table
