"""Loading reports from Python: ``harness.load_report`` and ``harness.load_reports``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.records.report import Report
from harness.records.run_folder import REPORT, read_report, read_runs
from harness.reporting.collection import Reports


def load_report(path: str | Path) -> Report:
    """Read the report of one run.

    Args:
        path: the folder of a run, or the ``report.json`` in it.

    Returns:
        The report; a notebook shows it as a table.

    Raises:
        HarnessError: there is no report, or it cannot be read.

    Example:
        >>> report = harness.load_report("results/RUN")
        >>> report.speed.relative
    """
    folder = Path(path)
    return read_report(folder.parent if folder.name == REPORT else folder)


def load_reports(
    folder: str | Path = "results", on_run: Callable[[], None] = lambda: None
) -> Reports:
    """Read the reports of all finished runs of a results folder, at any depth.

    Args:
        folder: the results folder.
        on_run: is called after each run.

    Returns:
        The runs, as a sequence with ``summarize()`` and ``to_pandas()``; a notebook shows it as a
        table. Folders that cannot be read are left out and listed in ``skipped``.

    Raises:
        HarnessError: there is no such folder, or it holds no finished run.

    Example:
        >>> for run in harness.load_reports("results"):
        ...     print(run.report.recipe, run.report.quality["rouge1"].value)
    """
    results = Path(folder)
    runs, skipped = read_runs(results, on_run)
    if not runs:
        unreadable = "".join(f"\nSkipped: {error.message}" for error in skipped)
        raise HarnessError(
            f"There are no finished runs in {str(results)!r}.{unreadable}",
            "Make one first: harness run",
        )
    return Reports(results, tuple(runs), tuple(skipped))
