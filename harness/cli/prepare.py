"""``harness prepare``: builds the folder that a task reads from a raw file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options


def prepare(
    task: Annotated[str, typer.Argument(help="Task whose data are built from a raw file.")],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    notes: Annotated[
        Path | None,
        typer.Option(help="Raw file, such as radiology.csv.gz.", show_default=False),
    ] = None,
    synthetic: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Generate N synthetic notes in the raw file's format and use them instead.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic notes.")] = 0,
    sections: Annotated[
        Path | None,
        typer.Option(help="File of section titles.", show_default="the task's own"),
    ] = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
) -> None:
    """Build a task's data from its raw file, and count the notes kept and left out.

    Example: harness prepare mimic_radiology --notes radiology.csv.gz --out data/mimic_radiology
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    import harness

    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[notes]:,} notes, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        bar = bars.add_task(task, total=1.0, start=False, notes=0, rate=0.0)

        def on_progress(read: int, share: float) -> None:
            # The clock starts with the first call: generating synthetic notes is not reading.
            bars.start_task(bar)
            elapsed = bars.tasks[bar].elapsed or 0.0
            rate = read / elapsed if elapsed else 0.0
            bars.update(bar, completed=share, notes=read, rate=rate)

        prepared = harness.prepare(
            task,
            out,
            notes=notes,
            synthetic=synthetic,
            seed=seed,
            sections=sections,
            encoding=encoding,
            delimiter=delimiter,
            on_progress=on_progress,
        )
        bars.update(bar, completed=1.0)
    typer.echo(f"{prepared.kept:,} examples are in {out}")
    for reason, count in sorted(prepared.left_out.items(), key=lambda item: -item[1]):
        typer.echo(f"{count:,} notes were left out: {reason}")
    typer.echo(f"Next: harness stats {task} --set task_options.path={out}")
