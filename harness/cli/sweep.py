"""``harness sweep``: runs every combination of backbones, recipes, tasks and seeds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness.sweeps.executor import Executor
    from harness.sweeps.preview import CellPlan
    from harness.sweeps.sweep import Outcome


class OnOom(StrEnum):
    """Reaction to a run that does not fit into memory."""

    FAIL = "fail"
    SHRINK = "shrink"


def sweep(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP.toml]",
            help="Sweep file, or a built-in sweep such as paper/table3.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbones, separated by commas.", show_default="nano-t5")
    ] = None,
    compressor: Annotated[
        str | None,
        typer.Option(help="Recipes, separated by commas.", show_default="lora_ff+lprun"),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Tasks, separated by commas.", show_default="radiology_demo")
    ] = None,
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    id_column: options.IdColumn = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds: 3 runs seeds 0, 1, 2.", show_default="1"),
    ] = None,
    plugin: options.PluginFiles = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    out: options.Out = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without confirmation.")] = False,
    probe: Annotated[
        bool | None,
        typer.Option(
            "--probe/--no-probe",
            help="Estimate the time of each run before the start; about a minute for six recipes.",
            show_default="unless --yes",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Executor of the runs: local, local:jobs=2, ray:address=HOST:PORT,gpus=1, "
            "slurm:partition=gpu,gpus=1,time=4:00:00."
        ),
    ] = "local",
    timeout: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="Time limit of one run.")
    ] = None,
    on_oom: Annotated[
        OnOom,
        typer.Option(
            help="If a run is out of memory. fail: report it; shrink: run it again with half the "
            "micro-batch and twice the accumulation."
        ),
    ] = OnOom.FAIL,
    snapshot_every: options.SnapshotEvery = 300,
    nproc: Annotated[
        int,
        typer.Option(min=1, help="Data-parallel processes of each run, each on its own GPU."),
    ] = 1,
    max_restarts: options.MaxRestarts = 0,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show the jobs that a sweep has in Slurm, from any machine that sees --out. "
            "Nothing is submitted; Ctrl-C leaves the jobs.",
        ),
    ] = False,
) -> None:
    """Run every combination of backbones, recipes, tasks and seeds, each in a fresh process.

    Runs that are already done are skipped, and interrupted runs resume: give the same command
    again to finish a sweep.

    Example: harness sweep --compressor full,lprun,lora_ff+lprun --seeds 3
    """
    from rich.console import Console

    import harness
    from harness.spec.run_spec import parse_settings

    console = Console(stderr=True, highlight=False)
    if watch:
        _watch(console, out)
        return

    def on_planned(plans: Sequence[CellPlan], place: Executor[Any]) -> None:
        unprobed = None
        if not place.here:
            unprobed = "the runs will be on other machines"
        elif probe is False or (probe is None and yes):
            unprobed = "not probed; --probe does it"
        _preview(console, plans, out, place, unprobed)
        if not yes:
            _confirm(console, sum(not plan.cell.done for plan in plans))

    result = harness.sweep(
        backbone,
        compressor,
        task,
        file=file,
        seeds=seeds,
        preset=preset,
        task_options=options.given(
            source_column=source_column,
            target_column=target_column,
            id_column=id_column,
            encoding=encoding,
            delimiter=delimiter,
        ),
        settings=parse_settings(settings or []),
        results=out,
        executor=executor,
        timeout=timeout,
        on_oom=on_oom.value,
        snapshot_every=snapshot_every,
        processes=nproc,
        max_restarts=max_restarts,
        on_planned=on_planned,
    )
    _conclude(console, result.outcomes, out)


def _watch(console: Console, out: Path) -> None:
    from harness.sweeps.slurm.watch import watch, watched_runs
    from harness.sweeps.view import SweepView

    runs = watched_runs(out)
    with SweepView(console, [run.cell for run in runs]) as view:
        outcomes = watch(runs, view.on_event)
    _conclude(console, outcomes, out)


def _preview(
    console: Console,
    plans: Sequence[CellPlan],
    out: Path,
    place: Executor[Any],
    unprobed: str | None,
) -> None:
    from rich.markup import escape

    from harness.cli.sweep_preview import show
    from harness.sweeps.forecast import forecast

    with console.status("", refresh_per_second=2) as status:

        def on_progress(text: str) -> None:
            if console.is_terminal:
                status.update(escape(text))
            else:
                console.print(text, soft_wrap=True, markup=False)

        forecasts = forecast(
            plans,
            out,
            here=place.here,
            unprobed=unprobed,
            on_progress=on_progress,
            processes=place.processes,
        )
    show(console, [plan.cell for plan in plans], forecasts)


def _confirm(console: Console, left: int) -> None:
    from harness.errors import HarnessError

    if left and not console.is_terminal:
        raise HarnessError(
            "The sweep needs a confirmation, and this is not a terminal.", "Add --yes."
        )
    if left:
        typer.confirm(f"Start {left} runs?", default=True, abort=True, err=True)


def _conclude(console: Console, outcomes: Sequence[Outcome], out: Path) -> None:
    from harness.sweeps.view import title

    bad = [outcome for outcome in outcomes if outcome.status != "ok"]
    cut = [outcome for outcome in outcomes if outcome.status == "ok" and outcome.micro_batch]
    for outcome in cut:
        note = f"{title(outcome.cell)}: fitted with a micro-batch of {outcome.micro_batch}."
        console.print(note, soft_wrap=True, markup=False)
    for outcome in bad:
        line = f"{outcome.status}: {title(outcome.cell)}: {outcome.message}"
        console.print(line, style="red", soft_wrap=True, markup=False)
    console.print(
        f"{len(outcomes) - len(bad)} of {len(outcomes)} runs are done. See: harness report {out}",
        soft_wrap=True,
        markup=False,
    )
    if bad:
        raise typer.Exit(1)
