"""``harness run``: runs a spec and writes its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.running.trackers import Tracker
    from harness.training.processes import Processes


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
    out: options.Out = Path("results"),
    snapshot_every: options.SnapshotEvery = 300,
) -> None:
    """Fine-tune a backbone with a recipe on a task, and report speed, memory and quality.

    Without options, the embedded backbone and task run in a few minutes. The run's folder holds its
    report, predictions, weights and all settings (spec.toml). Give the same command again to resume
    an interrupted run.
    """
    from harness.api.plugins import installed
    from harness.running.launch import is_launched, launch
    from harness.running.trackers import FOLDER, find_tracker
    from harness.spec.run_spec import RunSpec, overlay, parse_settings, read_toml, resolve

    trackers = [find_tracker(name, out / FOLDER) for name in dict.fromkeys(track or [])]
    plugins = installed()
    values: dict[str, Any] = read_toml(spec_file) if spec_file else {}
    named = {
        "backbone": backbone,
        "recipe": compressor,
        "task": task,
        "metrics": metrics,
        "seed": seed,
        "preset": preset,
    }
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if task_options := options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    ):
        given["task_options"] = task_options
    values = overlay(overlay(values, given), parse_settings(settings or []))

    # The registry first: a mistyped name must be answered before anything heavy is imported.
    # As text: a file or --set can hold any TOML value, which only resolve looks at.
    reference = str(values.get("backbone", RunSpec.model_fields["backbone"].default))
    plugins.tasks.find(str(values.get("task", RunSpec.model_fields["task"].default)))
    spec = resolve(values, plugins.backbone(reference).preset)
    if is_launched():
        _execute_together(spec, out, trackers, snapshot_every)
    elif nproc > 1:
        tracked = [word for name in track or [] for word in ("--track", name)]
        shared = ["--out", str(out), "--snapshot-every", str(snapshot_every), *tracked]
        raise typer.Exit(launch(nproc, spec, shared))
    else:
        _execute(spec, out, trackers, snapshot_every)


def _execute_together(
    spec: Any, out: Path, trackers: Sequence[Tracker], snapshot_every: float
) -> None:
    from harness.api.plugins import installed
    from harness.running.workers import run_worker
    from harness.training.processes import join

    with join(spec.device) as processes:
        if processes.rank == 0:
            _execute(spec, out, trackers, snapshot_every, processes)
        else:
            run_worker(spec, installed(), processes)


def _execute(
    spec: Any,
    out: Path,
    trackers: Sequence[Tracker],
    snapshot_every: float,
    processes: Processes | None = None,
) -> None:
    import logging
    import os
    from contextlib import ExitStack

    from rich.console import Console
    from rich.markup import escape

    from harness.api.plugins import installed
    from harness.cli.loading import one_run
    from harness.cli.progress import Progress
    from harness.evaluation.scoring import not_computed_note
    from harness.reporting.cost_breakdown import breakdown_lines

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console(stderr=True, highlight=False)
    # Paths and messages may hold square brackets, which rich would read as markup.
    backbone, task = escape(spec.backbone), escape(spec.task)
    console.print(
        f"[bold]{backbone}[/] x [bold]{spec.recipe}[/] on [bold]{task}[/], "
        f"seed {spec.seed}, preset {spec.preset}"
    )
    plugins = installed()
    with ExitStack() as observers:
        progress: list[Progress | Tracker] = [Progress(console)]
        for observer in (*progress, *trackers):
            observers.enter_context(observer)
            plugins.manager.register(observer)
            observers.callback(plugins.manager.unregister, observer)
        from harness.running.run import Run

        run = Run(spec, plugins, out, save_state_seconds=snapshot_every, processes=processes)
        report, folder = run.execute()
    if report.failure:
        console.print(
            f"[bold red]{report.status}[/] in the phase {report.failure.phase!r}: "
            f"{escape(report.failure.message)}",
            soft_wrap=True,
        )
        console.print(f"Report: {folder}", soft_wrap=True, markup=False)
        raise typer.Exit(130 if report.status == "interrupted" else 1)
    typer.echo(one_run(folder, report), nl=False)
    for line in breakdown_lines(report):
        console.print(line, style="dim", soft_wrap=True, markup=False)
    if report.not_computed:
        note = not_computed_note(report.not_computed)
        console.print(note, style="dim", soft_wrap=True, markup=False)
    console.print(f"Report, predictions and weights: {folder}", soft_wrap=True, markup=False)
