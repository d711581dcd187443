"""Costs of several processes in every format."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from harness.records.measurements import ProcessCosts, RankCosts
from harness.records.report import Report
from harness.records.run_folder import StoredRun
from harness.reporting.aggregation import summarize
from harness.reporting.documents import latex, markdown, notebook_html, table_csv
from harness.reporting.page.render import page
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Summary
from harness.reporting.table import table

MakeReport = Callable[..., Report]


def costs_of(sent: float | None, least: int) -> ProcessCosts:
    ranks = [RankCosts(tokens_per_s=900 + rank, peak_bytes=(1 + rank) * 2**29) for rank in range(2)]
    return ProcessCosts(
        processes=2,
        tokens_per_s=1801,
        single_tokens_per_s=1000,
        efficiency=0.9005,
        efficiency_ci=(0.88, 0.92),
        ranks=ranks,
        sent_bytes_per_step=sent,
        least_bytes_per_step=least,
        not_measured={} if sent else {"sent_bytes_per_step": "NCCL does not count"},
    )


@pytest.fixture
def runs(make_report: MakeReport) -> list[StoredRun]:
    """Full fine-tuning, LoRA in two processes, pruning in two whose bytes are unknown."""
    costs = {"full": None, "lora_ff": costs_of(1_230_000, 1_200_000), "lprun": costs_of(None, 8)}
    reports = [make_report(recipe=r, id=r, process_costs=c) for r, c in costs.items()]
    return [StoredRun(Path("nowhere"), report) for report in reports]


@pytest.fixture
def summary(runs: list[StoredRun]) -> Summary:
    return summarize(runs, Comparisons(None))


def test_the_terminal_has_a_table_of_several_processes(summary: Summary) -> None:
    shown = click.unstyle(table(summary))
    lines = [line.split() for line in shown.split("several processes:\n")[1].splitlines()]
    assert " ".join(lines[0]) == "recipe processes tokens/s efficiency sent MB GiB each"
    assert " ".join(lines[1]) == "lora_ff 2 1,801 90 % 1.23 1.00"
    assert " ".join(lines[2]) == "900-901 each 88-92 least 1.2"
    assert " ".join(lines[3]) == "lprun 2 1,801 90 % - 1.00"
    assert "No sent bytes of lprun (NCCL does not count)." in shown


def test_documents_have_columns_of_several_processes(
    summary: Summary, runs: list[StoredRun]
) -> None:
    assert "| 2 | 1,801 (900-901 each) | 90 % (88-92) | 1.23 (least 1.2) | 1.00 |" in markdown(
        summary
    )
    for text in (latex(summary), notebook_html(summary)):
        assert "1.23 (least 1.2)" in text
    assert "1.23<small>least 1.2</small>" in page(summary, runs)
    full, lora, pruned = csv.DictReader(io.StringIO(table_csv(summary)))
    assert full["parallel_efficiency"] == ""
    assert lora["parallel_efficiency"] == "0.9005"
    assert lora["process_memory_bytes"] == f"{2**29} {2**30}"
    assert lora["sent_bytes_per_step"] == "1230000.0"
    assert (pruned["sent_bytes_per_step"], pruned["least_bytes_per_step"]) == ("", "8")


def test_runs_of_one_process_have_no_such_columns(make_report: MakeReport) -> None:
    alone = summarize([StoredRun(Path("nowhere"), make_report())], Comparisons(None))
    assert "several processes" not in table(alone)
    assert "efficiency" not in markdown(alone) + table_csv(alone)
