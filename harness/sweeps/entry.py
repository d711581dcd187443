"""A sweep from Python: ``harness.sweep``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from harness.api.options import validate
from harness.api.parts import split_parts
from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.records.run_folder import REPORT, StoredRun, read_report
from harness.reporting.collection import Reports
from harness.running.launch import require_gpus
from harness.spec.run_spec import overlay
from harness.spec.settings import nested_settings
from harness.sweeps.executor import Event, Executor, open_executor
from harness.sweeps.grid import SweepFile, read_sweep, specs
from harness.sweeps.preview import CellPlan, plan_cells
from harness.sweeps.sweep import Outcome, Sweep, SweepCell
from harness.sweeps.view import SweepView


@dataclass(frozen=True)
class SweepResult:
    """The outcome of every run of a sweep.

    Attributes:
        results: the results folder.
        outcomes: status and message of each run, in the order of the sweep.
    """

    results: Path
    outcomes: tuple[Outcome, ...]

    @property
    def reports(self) -> Reports:
        """The reports of the runs that have one."""
        folders = [self.results / outcome.cell.id for outcome in self.outcomes]
        written = [folder for folder in folders if (folder / REPORT).exists()]
        runs = [StoredRun(folder, read_report(folder), folder.name) for folder in written]
        return Reports(self.results, tuple(runs))

    def _repr_html_(self) -> str:
        return self.reports._repr_html_()


def sweep(
    backbone: str | Iterable[str] | None = None,
    compressor: str | Iterable[str] | None = None,
    task: str | Iterable[str] | None = None,
    *,
    file: str | Path | None = None,
    seeds: int | None = None,
    preset: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    results: str | Path = "results",
    executor: str = "local",
    timeout: float | None = None,
    on_oom: Literal["fail", "shrink"] = "fail",
    snapshot_every: float = 300,
    processes: int = 1,
    max_restarts: int = 0,
    progress: bool = True,
    on_planned: Callable[[Sequence[CellPlan], Executor[Any]], None] = lambda *_: None,
) -> SweepResult:
    """Run every combination of backbones, recipes, tasks and seeds, each in a fresh process.

    Runs that the results folder holds already are not repeated, and interrupted runs resume: call
    the function again with the same arguments to finish a sweep.

    Args:
        backbone: backbones, as a list or separated by commas; by default ``nano-t5``.
        compressor: recipes, as a list or separated by commas; by default ``lora_ff+lprun``.
        task: tasks, as a list or separated by commas; by default ``radiology_demo``.
        file: a sweep file or a built-in sweep such as ``paper/table3``, in place of backbones,
            recipes and tasks.
        seeds: number of seeds: 3 runs the seeds 0, 1 and 2; by default the file's, or 1.
        preset: settings to start from: ``paper`` or ``quick``; by default what suits each backbone.
        task_options: options of the tasks.
        settings: settings of all runs, such as ``{"train.epochs": 3, "device": "cpu"}``.
        results: the results folder.
        executor: executor of the runs, such as ``local:jobs=2`` or ``ray``.
        timeout: time limit of one run, in seconds.
        on_oom: ``shrink`` runs a cell that is out of memory again, with a smaller micro-batch.
        snapshot_every: seconds between saves of the training state.
        processes: number of processes that train each run together, each on its own GPU, as with
            ``harness run --nproc``.
        max_restarts: number of times that the processes of a run are started again after one of
            them was lost.
        progress: show a line for each run, on a terminal or in a notebook.
        on_planned: is called with the planned cells and the executor before anything runs; an
            exception that it raises stops the sweep.

    Returns:
        The outcomes, and the reports in ``reports``; a notebook shows them as a table. A run that
        fails does not stop the others.

    Raises:
        HarnessError: a mistake in the settings, or missing data; nothing has run yet.
        KeyboardInterrupt: the sweep was interrupted; its runs saved their states.

    Example:
        >>> sweep = harness.sweep(compressor=["full", "lora_ff+lprun"], seeds=3)
        >>> sweep.reports.summarize()
    """
    folder = Path(results)
    base: dict[str, Any] = {"preset": preset} if preset else {}
    if task_options:
        base["task_options"] = dict(task_options)
    lists = {"backbone": _names(backbone), "compressor": _recipes(compressor), "task": _names(task)}
    grid = {name: listed for name, listed in lists.items() if listed is not None}
    values = overlay(base, nested_settings(settings or {}))
    chosen = specs(_sweep_file(file, grid, seeds), values, installed())
    place = open_executor(executor, installed())
    if processes > 1:
        place.use_processes(processes)
        for device in {spec.device for spec in chosen} if place.here else ():
            require_gpus(processes, device)
    plans = plan_cells(chosen, installed(), folder, processes)
    cells = [plan.cell for plan in plans]
    on_planned(plans, place)
    del plans  # They hold the data, which the runs read for themselves.
    console = Console(stderr=True, highlight=False)
    with SweepView(console, cells) if progress else nullcontext() as view:
        runner = Sweep(
            folder,
            place,
            view.on_event if view else _ignore,
            timeout=timeout,
            on_oom=on_oom,
            save_state_seconds=snapshot_every,
            plugin_files=installed().files,
            processes=processes,
            max_restarts=max_restarts,
        )
        outcomes = runner.run(cells)
    return SweepResult(folder, tuple(outcomes))


def _ignore(cell: SweepCell, event: Event) -> None:
    """Show nothing."""


def _names(names: str | Iterable[str] | None) -> list[str] | None:
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    return None if names is None else list(names)


def _recipes(recipes: str | Iterable[str] | None) -> list[str] | None:
    return split_parts(recipes) if isinstance(recipes, str) else _names(recipes)


def _sweep_file(
    file: str | Path | None, grid: Mapping[str, Sequence[str]], seeds: int | None
) -> SweepFile:
    if file is None:
        return validate(SweepFile, {"seeds": seeds or 1, "grid": [grid]}, "A sweep")
    if grid:
        raise HarnessError(
            f"The sweep {str(file)!r} lists its own runs: --{next(iter(grid))} cannot be added.",
            "Copy the file and edit it, or leave it out.",
        )
    read = read_sweep(str(file))
    return read if seeds is None else read.model_copy(update={"seeds": seeds})
