"""``harness diagnose``: where a model can be made cheaper, and where quality was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.diagnosis.record import Diagnosis


def diagnose(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run whose trained model is looked into.",
            show_default="the backbone before training",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Model: a name, a hub id or a folder.", show_default="nano-t5"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task: a name, or your own file or folder.", show_default="radiology_demo"
        ),
    ] = None,
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    id_column: options.IdColumn = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run to compare the run's quality with, usually full fine-tuning's.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=2, help="Examples of the eval split.")] = 32,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write a page with charts to: report.html", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show how removable each layer is, what training changes, and where quality was lost.

    A recipe is proposed from that, with the evidence for it.

    Example: harness diagnose results/FULL --out diagnosis.html
    """
    import harness
    from harness.cli.export import progress
    from harness.diagnosis.page import page, require_packages
    from harness.records.atomic import write_text

    named = options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    )
    if out:  # Before minutes of work, not after them.
        require_packages()
    with progress(quiet=as_json) as on_progress:
        diagnosis = harness.diagnose(
            run,
            backbone=backbone,
            task=task,
            task_options=named,
            against=against,
            examples=examples,
            device=device,
            on_progress=on_progress,
        )
    if out:
        write_text(out, page(diagnosis))
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=2))
    else:
        _print(diagnosis)
        if out:
            typer.echo(f"Written: {out}")


def _print(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.diagnosis.tables import heading, tables

    console = Console(highlight=False)
    for line in heading(diagnosis):
        console.print(line, markup=False, soft_wrap=True)
    for one in tables(diagnosis):
        table = Table(title=one.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for number, name in enumerate(one.columns):
            table.add_column(name, justify="right" if number >= one.texts else "left")
        for row in one.rows:
            table.add_row(*row)
        console.print()
        console.print(table)
        for note in one.notes:
            console.print(note, style="dim", markup=False)
    if diagnosis.proposal:
        console.print()
        console.print(f"Worth trying: {diagnosis.proposal.recipe}", markup=False, soft_wrap=True)
        for sentence in diagnosis.proposal.evidence:
            console.print(sentence, style="dim", markup=False)
