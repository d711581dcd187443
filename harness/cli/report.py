"""``harness report``: a folder of runs as a table, a document, data or a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.records.report import Report
    from harness.records.run_folder import StoredRun
    from harness.reporting.summary import Summary

PAPER = "paper"

_PROCESSES = 8
"""Most processes that compare; each takes some 150 MB."""


def report(
    results: Annotated[Path, typer.Argument(help="Folder of all runs.")] = Path("results"),
    form: Annotated[
        Literal["table", "md", "latex", "csv", "json", "html"],
        typer.Option("--format", help="How to show it."),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(help="Write to this file instead of the terminal.", show_default=False),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="paper|FOLDER",
            help="Set the paper's numbers, or those of another results folder, beside each row.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Names with commas, the first for the front.", show_default="all"),
    ] = None,
) -> None:
    """Show all runs: speed, trained parameters, memory and quality, averaged over seeds.

    Quality is compared with full fine-tuning on the same test examples; what was computed for that
    is kept in the results folder, so that it takes its time once.
    """
    runs = load(results)
    summary = summarized(results, runs, metrics)
    if compare == PAPER:
        from harness.reporting.reference import add_paper_reference

        add_paper_reference(summary)
    elif compare is not None:
        from harness.reporting.reference import beside_other

        other = Path(compare)
        beside_other(summary, summarized(other, load(other), metrics), compare)
    text = _text(summary, runs, form, out)
    if out is None:
        typer.echo(text, nl=False)
    else:
        from harness.records.atomic import write_text

        write_text(out, click.unstyle(text))
        typer.echo(f"Written: {out}", err=True)


def load(results: Path) -> list[StoredRun]:
    """Read all runs, and tell of those that cannot be read.

    Raises:
        HarnessError: there is none.
    """
    from harness.cli.waiting import Waiting
    from harness.errors import HarnessError
    from harness.records.run_folder import read_runs

    with Waiting("Reading runs") as waiting:
        runs, skipped = read_runs(results, waiting.on_progress)
    for error in skipped:
        # One damaged folder must not hide the others, nor be left out in silence.
        typer.secho(f"Skipped: {error.message}", err=True, dim=True)
    if not runs:
        raise HarnessError(
            f"There are no finished runs in {str(results)!r}.", "Make one first: harness run"
        )
    return runs


def summarized(results: Path, runs: Sequence[StoredRun], metrics: str | None) -> Summary:
    """Average and compare, with a bar where that takes long.

    Raises:
        HarnessError: no run has one of the metrics that are requested.
    """
    from harness.cli.waiting import Waiting
    from harness.errors import HarnessError, did_you_mean
    from harness.reporting.aggregation import grouped, summarize
    from harness.reporting.paired_comparison import Comparisons

    chosen = None
    if metrics is not None:
        chosen = [name.strip() for name in metrics.split(",") if name.strip()]
        had = sorted({name for run in runs for name in run.report.quality})
        for name in chosen:
            if name not in had:
                raise HarnessError(
                    f"No run in {str(results)!r} has the metric {name!r}.",
                    f"{did_you_mean(name, had)} There are: {', '.join(had)}.",
                )
    recipes = sum(len({run.report.recipe for run in group}) for group in grouped(runs).values())
    comparisons = Comparisons(results, min(_PROCESSES, os.cpu_count() or 1))
    with Waiting("Comparing recipes", recipes) as waiting:
        try:
            return summarize(runs, comparisons, chosen, waiting.on_progress)
        finally:
            comparisons.keep()


def terminal_table(summary: Summary) -> str:
    """Lay out the table for the width of the terminal, or of a mail where there is none."""
    import shutil

    from harness.reporting.table import table

    return table(summary, shutil.get_terminal_size((80, 24)).columns)


def one_run(folder: Path, report: Report) -> str:
    """Return the table of a single run."""
    from harness.records.run_folder import StoredRun
    from harness.reporting.aggregation import summarize
    from harness.reporting.paired_comparison import Comparisons

    summary = summarize([StoredRun(folder, report)], Comparisons(None))
    return terminal_table(summary)


def _text(summary: Summary, runs: Sequence[StoredRun], form: str, out: Path | None) -> str:
    if form == "json":
        return summary.model_dump_json(indent=2) + "\n"
    if form == "table":
        return terminal_table(summary)
    if form == "html":
        from harness.reporting.page.render import page

        return page(summary, runs)
    from harness.reporting import documents

    writers = {"md": documents.markdown, "latex": documents.latex, "csv": documents.table_csv}
    return writers[form](summary)
