"""Atomic writes: a file is complete or unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.records.atomic import append_line, write_lines, write_text

ROWS = st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.floats(allow_nan=False)))
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED_FOLDER
@given(ROWS)
def test_lines_are_rows_of_json_whatever_the_text(tmp_path: Path, rows: list[Any]) -> None:
    whole, grown = tmp_path / "whole.jsonl", tmp_path / "grown.jsonl"
    grown.unlink(missing_ok=True)
    write_lines(whole, rows)
    for row in rows:
        append_line(grown, row)
    with whole.open(encoding="utf-8", newline="\n") as file:
        assert [json.loads(line) for line in file] == rows
    assert not rows or grown.read_bytes() == whole.read_bytes()


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old " * 100)
    write_text(path, "new é\n")
    assert path.read_text("utf-8") == "new é\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of a pair: \ud800")
    assert path.read_text() == "old"


def test_rows_that_cannot_be_computed_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"a": 1}])
    with pytest.raises(ZeroDivisionError):
        write_lines(path, ({"a": 1 // n} for n in (1, 0)))
    assert path.read_text() == '{"a": 1}\n'
