"""``harness run``: executes one run and shows its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.records.run_folder import StoredRun


def run(
    spec_file: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC.toml]", help="Spec file with settings.", show_default=False),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Model to fine-tune: a name, a hub id or a folder.", show_default="nano-t5"
        ),
    ] = None,
    compressor: Annotated[
        str | None,
        typer.Option(
            help="Recipe: compressors joined by +, with options after a colon.",
            show_default="lora_ff+lprun",
        ),
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
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; a missing model is an error.",
            show_default="the task's suite",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seeds initialization, order of examples and dropout.", show_default="0"
        ),
    ] = None,
    plugin: options.PluginFiles = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="Also log to tensorboard, mlflow or wandb; repeatable.", show_default=False
        ),
    ] = None,
    nproc: Annotated[
        int,
        typer.Option(min=1, help="Data-parallel processes, each on its own GPU."),
    ] = 1,
    max_restarts: options.MaxRestarts = 0,
    out: options.Out = Path("results"),
    snapshot_every: options.SnapshotEvery = 300,
) -> None:
    """Fine-tune a backbone with a recipe on a task, and report speed, memory and quality.

    Without options, the embedded backbone and task run in a few minutes. The run's folder holds its
    report, predictions, weights and all settings (spec.toml). Give the same command again to resume
    an interrupted run.
    """
    import harness
    from harness.running.entry import InterruptedRunError
    from harness.running.launch import is_launched, launch_run
    from harness.running.request import run_spec
    from harness.spec.run_spec import parse_settings

    named = {
        "backbone": backbone,
        "recipe": compressor,
        "task": task,
        "task_options": options.given(
            source_column=source_column,
            target_column=target_column,
            id_column=id_column,
            encoding=encoding,
            delimiter=delimiter,
        ),
        "metrics": metrics,
        "seed": seed,
        "preset": preset,
    }
    spec = run_spec(spec_file, named, parse_settings(settings or []))
    if (nproc > 1 or max_restarts) and not is_launched():
        tracked = [word for name in track or [] for word in ("--track", name)]
        files = [word for file in plugin or [] for word in ("--plugin", str(file.resolve()))]
        shared = ["--snapshot-every", str(snapshot_every), *tracked, *files]
        ended = launch_run(nproc, spec, out, shared, max_restarts, _complain)
        raise typer.Exit(ended.status())
    try:
        stored = harness.run(
            spec=spec, results=out, track=track or (), snapshot_every=snapshot_every
        )
    except InterruptedRunError as error:
        stored = error.run
    _show(stored)


def _complain(message: str) -> None:
    typer.echo(message, err=True)


def _show(run: StoredRun) -> None:
    from rich.console import Console
    from rich.markup import escape

    from harness.cli.loading import one_run
    from harness.evaluation.scoring import not_computed_note
    from harness.reporting.cost_breakdown import breakdown_lines
    from harness.running.launch import failure_status

    console = Console(stderr=True, highlight=False)
    report, folder = run.report, run.folder
    if report.failure:
        console.print(
            f"[bold red]{report.status}[/] in the phase {report.failure.phase!r}: "
            f"{escape(report.failure.message)}",
            soft_wrap=True,
        )
        console.print(f"Report: {folder}", soft_wrap=True, markup=False)
        raise typer.Exit(failure_status(report.status))
    typer.echo(one_run(folder, report), nl=False)
    for line in breakdown_lines(report):
        console.print(line, style="dim", soft_wrap=True, markup=False)
    if report.not_computed:
        note = not_computed_note(report.not_computed)
        console.print(note, style="dim", soft_wrap=True, markup=False)
    console.print(f"Report, predictions and weights: {folder}", soft_wrap=True, markup=False)
