"""``harness report``: the table over all runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[Path, typer.Argument(help="Folder of all runs.")] = Path("results"),
) -> None:
    """Show the table over all runs: speed, trained parameters, memory, quality."""
    from rich.console import Console

    from harness.errors import HarnessError
    from harness.reporting.folder import find_runs, read_report
    from harness.reporting.table import results_table

    reports = []
    for folder in find_runs(results):
        try:
            reports.append(read_report(folder))
        except HarnessError as error:
            # One damaged folder must not hide the others, nor be left out in silence.
            Console(stderr=True, highlight=False).print(
                f"Skipped: {error.message}", style="dim", soft_wrap=True, markup=False
            )
    if not reports:
        raise HarnessError(
            f"There are no finished runs in {str(results)!r}.", "Make one first: harness run"
        )
    Console(highlight=False).print(results_table(reports))
