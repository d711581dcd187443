"""``harness sweep``: runs every cell of a table."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness.sweeps.forecast import Forecast
    from harness.sweeps.grid import SweepFile
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
            help="Executor of the runs: local, local:jobs=2, ray, ray:address=HOST:PORT,gpus=1."
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
) -> None:
    """Run every combination of backbones, recipes, tasks and seeds, each in a fresh process.

    Runs that are already done are skipped, and interrupted runs resume: give the same command
    again to finish a sweep.

    Example: harness sweep --compressor full,lprun,lora_ff+lprun --seeds 3
    """
    from rich.console import Console

    from harness.api.plugins import installed
    from harness.cli.sweep_preview import show
    from harness.sweeps.view import SweepView
    from harness.errors import HarnessError
    from harness.spec.run_spec import overlay, parse_settings
    from harness.sweeps.executor import open_executor
    from harness.sweeps.grid import specs
    from harness.sweeps.preview import plan_cells
    from harness.sweeps.sweep import Sweep

    console = Console(stderr=True, highlight=False)
    plan = _plan(file, backbone, compressor, task, seeds)
    over: dict[str, Any] = {"preset": preset} if preset else {}
    if task_options := options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    ):
        over["task_options"] = task_options
    chosen = specs(plan, overlay(over, parse_settings(settings or [])), installed())
    place = open_executor(executor, installed())
    cell_plans = plan_cells(chosen, installed(), out)
    cells = [each.cell for each in cell_plans]
    unprobed = None
    if not place.here:
        unprobed = "the runs will be on other machines"
    elif probe is False or (probe is None and yes):
        unprobed = "not probed; --probe does it"
    forecasts = _forecasts(console, cell_plans, out, here=place.here, unprobed=unprobed)
    del cell_plans  # It holds the data, which the runs read for themselves.
    show(console, cells, forecasts)
    left = sum(not cell.done for cell in cells)
    if left and not yes:
        if not console.is_terminal:
            raise HarnessError(
                "The sweep needs a confirmation, and this is not a terminal.", "Add --yes."
            )
        typer.confirm(f"Start {left} runs?", default=True, abort=True, err=True)
    with SweepView(console, cells) as view:
        runner = Sweep(
            out,
            place,
            view.on_event,
            timeout=timeout,
            on_oom=on_oom.value,
            save_state_seconds=snapshot_every,
        )
        outcomes = runner.run(cells)
    _conclude(console, outcomes, out)


def _plan(
    file: str | None,
    backbone: str | None,
    compressor: str | None,
    task: str | None,
    seeds: int | None,
) -> SweepFile:
    from harness.api.options import validate
    from harness.api.parts import split_parts
    from harness.errors import HarnessError
    from harness.sweeps.grid import SweepFile, read_sweep

    def split(text: str) -> list[str]:
        return [item.strip() for item in text.split(",") if item.strip()]

    grid: dict[str, Any] = {}
    if backbone is not None:
        grid["backbone"] = split(backbone)
    if compressor is not None:
        grid["compressor"] = split_parts(compressor)
    if task is not None:
        grid["task"] = split(task)
    if file is None:
        return validate(SweepFile, {"seeds": seeds or 1, "grid": [grid]}, "A sweep")
    if grid:
        raise HarnessError(
            f"The sweep {file!r} says itself what is run: --{next(iter(grid))} cannot be added.",
            "Copy the file and edit it, or leave it out.",
        )
    read = read_sweep(file)
    return read if seeds is None else read.model_copy(update={"seeds": seeds})


def _forecasts(
    console: Console, cell_plans: Sequence[CellPlan], out: Path, *, here: bool, unprobed: str | None
) -> dict[str, Forecast]:
    from rich.markup import escape

    from harness.sweeps.forecast import forecast

    with console.status("", refresh_per_second=2) as status:

        def on_progress(text: str) -> None:
            if console.is_terminal:
                status.update(escape(text))
            else:
                console.print(text, soft_wrap=True, markup=False)

        return forecast(cell_plans, out, here=here, unprobed=unprobed, on_progress=on_progress)


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
