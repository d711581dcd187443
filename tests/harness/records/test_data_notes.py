"""Notes of every table on left out rows and truncated texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from harness.records.data_notes import data_shares
from harness.records.report import Data


def data(**changes: Any) -> dict[str, Any]:
    values = {"train": 60, "eval": 10, "test": 10, "skipped": {}, "cut_sources": 0}
    return {**values, "cut_targets": 0, "sha256": "ab", "rows": 90, **changes}


@pytest.mark.parametrize("form", ["table", "md", "latex", "html"])
def test_every_table_notes_left_out_rows_and_truncated_texts(
    tmp_path: Path, write_run: Callable[..., Path], harness: Callable[..., Result], form: str
) -> None:
    if form == "html":
        pytest.importorskip("vl_convert")
    counts = data(skipped={"target is empty": 10}, cut_sources=20, cut_targets=70)
    write_run(tmp_path, {"rouge1": [1.0, 2.0]}, data=counts)
    result = harness("report", str(tmp_path), "--format", form, columns=400)
    shown = result.stdout.replace("\\", "")
    assert "10 of 100 (10 %) rows were left out: target is empty" in shown
    assert "20 of 80 (25 %) sources are longer than the limit" in shown
    assert "70 of 80 (87.5 %) targets are longer than the limit" in shown
    for option in ("--target-column", "max_source_length=N", "max_target_length=N"):
        assert option in shown


def test_runs_that_differ_have_their_largest_share() -> None:
    runs = [Data(**data(cut_targets=cut)) for cut in (0, 8, 4)]
    (note,) = data_shares(runs)
    assert note.startswith("Up to 8 of 80 (10 %) targets")
    (alike,) = data_shares([runs[1], runs[1]])
    assert alike.startswith("8 of 80")


def test_there_is_no_note_where_nothing_was_left_out() -> None:
    assert list(data_shares([Data(**data())])) == []
    assert list(data_shares([Data(**data(train=0, eval=0, test=0, rows=0))])) == []


def test_a_table_names_scores_that_are_missing_and_the_option_that_mends_them(
    tmp_path: Path, write_run: Callable[..., Path], harness: Callable[..., Result]
) -> None:
    reason = "The tokenizer drops 100 % of the letters: --metrics rouge:tokenizer=unicode"
    missing = {"rouge1": reason, "rouge2": reason, "bertscore": "there is no model"}
    write_run(tmp_path, {"chrf": [1.0, 2.0]}, not_computed=missing)
    shown = harness("report", str(tmp_path), columns=400).stdout
    assert f"Not computed: rouge1, rouge2. {reason}." in shown
