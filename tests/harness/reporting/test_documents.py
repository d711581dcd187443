"""Markdown, LaTeX and CSV: their numbers, and names that stay inside their cells."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.documents import latex, markdown, table_csv
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Summary

HOSTILE = "a|b & c_d#<script>*x*\\y{z}$`\n=1"


@pytest.fixture
def summary(tmp_path: Path, write_run: Callable[..., Path]) -> Summary:
    scores = [40.0, 42.0, 39.0, 47.0, 41.0]
    write_run(tmp_path, {"rouge1": scores})
    write_run(tmp_path, {"rouge1": [s - 4 - s % 2 for s in scores]}, recipe="lora_ff")
    failure = {"phase": "train", "message": "no memory"}
    write_run(tmp_path, {}, recipe="lprun", status="oom", failure=failure)
    return summarize(read_runs(tmp_path)[0], Comparisons(None))


def test_markdown_is_a_table_with_the_numbers(summary: Summary) -> None:
    lines = [line for line in markdown(summary).splitlines() if line.startswith("|")]
    heads, _, full, lora, failed = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]
    assert heads[-2:] == ["R-1", "R-1 kept"]
    assert full[0] == "full"
    assert full[-2:] == ["41.80 (40.80-42.80, 1 seed)", ""]
    assert lora[0] == r"lora\_ff"
    assert lora[-2].startswith(r"37.20\* (36.20-38.20, 1 seed)")
    assert lora[-1].startswith("89.0 % (")
    assert failed[2] == "oom"
    assert {len(row) for row in (heads, full, lora, failed)} == {len(heads)}


def test_latex_rows_have_as_many_cells_as_columns(summary: Summary) -> None:
    text = latex(summary)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 3
    for line in body:
        assert len(re.split(r"(?<!\\)&", line)) == len(columns[1])
        assert line.endswith(r"\\")
    assert r"lora\_ff" in text


def test_csv_holds_plain_numbers(summary: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(summary))))
    assert [row["recipe"] for row in rows] == ["full", "lora_ff", "lprun"]
    full, lora, failed = rows
    assert float(full["rouge1"]) == pytest.approx(41.8)
    assert float(lora["rouge1_retention"]) == pytest.approx(37.2 / 41.8)
    assert float(lora["memory_bytes"]) == 2**30
    assert (failed["status"], failed["failures"]) == ("oom", "seed 0: oom in train")
    assert (failed["rouge1"], full["failures"]) == ("", "")


def test_names_stay_in_their_cells(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run(tmp_path, {"rouge1": [1.0, 2.0]}, backbone=HOSTILE, task="=HYPERLINK(1)", id="run")
    summary = summarize(read_runs(tmp_path)[0], Comparisons(None))
    title = markdown(summary).splitlines()[0]
    assert "<script" not in title
    assert r"a\|b" in title
    assert r"a|b \& c\_d\#\textless{}script" in latex(summary)
    (row,) = csv.DictReader(io.StringIO(table_csv(summary)))
    assert row["task"] == "'=HYPERLINK(1)"
