"""Reading and summarizing a results folder, with progress bars on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.cli.waiting import Waiting

if TYPE_CHECKING:
    from harness.records.report import Report
    from harness.reporting.collection import Reports
    from harness.reporting.summary import Front, Summary


def load(results: Path) -> Reports:
    """Read all runs, and print a line for each that cannot be read.

    Args:
        results: the results folder.

    Raises:
        HarnessError: there is no such folder.
    """
    import harness

    with Waiting("Reading runs") as waiting:
        runs = harness.load_reports(results, waiting.on_progress)
    for error in runs.skipped:
        # A damaged folder must neither hide the other runs nor be left out silently.
        typer.secho(f"Skipped: {error.message}", err=True, dim=True)
    return runs


def summarize(
    runs: Reports, metrics: str | None, front: Front = "training", baseline: str = "full"
) -> Summary:
    """Average the runs over seeds and compare recipes, with a progress bar if that takes long.

    Args:
        runs: the runs of a results folder.
        metrics: names of metrics, separated by commas; None takes all.
        front: the costs of the Pareto front.
        baseline: the recipe that quality is compared with.

    Raises:
        HarnessError: no run has one of the metrics, or none is of the baseline.
    """
    names = None
    if metrics is not None:
        names = [name.strip() for name in metrics.split(",") if name.strip()]
    with Waiting("Comparing recipes", runs.recipe_count) as waiting:
        return runs.summarize(names, waiting.on_progress, front, baseline)


def terminal_table(summary: Summary) -> str:
    """Lay out the table for the width of the terminal, or for 80 columns without a terminal.

    Args:
        summary: the summary of the runs.
    """
    import shutil

    from harness.reporting.table import table

    return table(summary, shutil.get_terminal_size((80, 24)).columns)


def one_run(folder: Path, report: Report) -> str:
    """Return the table of a single run.

    Args:
        folder: the folder of the run.
        report: the report of the run.
    """
    from harness.records.run_folder import StoredRun
    from harness.reporting.aggregation import summarize as summarize_runs
    from harness.reporting.paired_comparison import Comparisons

    return terminal_table(summarize_runs([StoredRun(folder, report)], Comparisons(None)))
