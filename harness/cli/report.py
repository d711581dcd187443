"""``harness report``: shows a results folder as a table, a document, data or a web page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

from harness.cli import options
from harness.cli.loading import load, summarize, terminal_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.records.run_folder import StoredRun
    from harness.reporting.summary import Summary

PAPER = "paper"


def report(
    results: options.Results = Path("results"),
    form: Annotated[
        Literal["table", "md", "latex", "csv", "json", "html"],
        typer.Option("--format", help="Format of the report."),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write to instead of the terminal.", show_default=False),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="paper|FOLDER",
            help="Show the paper's numbers, or those of another results folder, beside each row.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; the Pareto front uses the first one.",
            show_default="all",
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="Recipe that quality is compared with; speed and memory stay relative to full.",
        ),
    ] = "full",
    front: Annotated[
        Literal["training", "inference"],
        typer.Option(help="Speed and memory of the Pareto front: those of training or decoding."),
    ] = "training",
) -> None:
    """Show each recipe's costs of training and decoding and its quality, averaged over seeds.

    Quality is compared with full fine-tuning, or with another recipe (--baseline), on the same test
    examples. The results folder caches the comparison, so a second report is fast.
    """
    runs = load(results)
    summary = summarize(runs, metrics, front, baseline)
    if compare == PAPER:
        from harness.reporting.reference import add_paper_reference

        add_paper_reference(summary)
    elif compare is not None:
        from harness.reporting.reference import add_folder_reference

        other = summarize(load(Path(compare)), metrics)
        add_folder_reference(summary, other, compare)
    text = _text(summary, runs, form, out)
    if out is None:
        typer.echo(text, nl=False)
    else:
        from harness.records.atomic import write_text

        write_text(out, click.unstyle(text))
        typer.echo(f"Written: {out}", err=True)


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
