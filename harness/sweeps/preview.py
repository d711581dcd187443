"""Plans of a sweep's cells: ids, steps and earlier times, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.api.backbone import Backbone
from harness.api.plugins import Plugins
from harness.api.recipe import Recipe
from harness.api.task import Splits, Task
from harness.data.examples import Example
from harness.data.stored_examples import splits_hash
from harness.errors import HarnessError
from harness.records.run_folder import find_runs, is_done, read_report
from harness.running.identity import identity
from harness.running.supervision import thread_share
from harness.spec.run_spec import RunSpec
from harness.sweeps.sweep import SweepCell
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule


class CellPlan(NamedTuple):
    """A cell with its backbone, recipe, task and data."""

    cell: SweepCell
    backbone: Backbone
    recipe: Recipe
    task: Task[Any]
    splits: Splits
    """Splits of the first seed; those of other seeds have the same sizes."""

    @property
    def kind(self) -> str:
        """Hash of the spec without its seed; cells that differ only in their seed share it."""
        recipe = self.cell.recipe
        return self.cell.spec.model_copy(update={"seed": 0, "recipe": recipe}).digest()


def plan_cells(
    specs: Sequence[RunSpec], plugins: Plugins, results: Path, processes: int = 1
) -> list[CellPlan]:
    """Plan each run: read its data, compute its id, and check whether it is done.

    Args:
        specs: the specs of the runs.
        plugins: the plugins of this environment.
        results: the folder of all runs.
        processes: number of processes of each run; they are a part of its id.

    Raises:
        HarnessError: data or a tokenizer are missing; no run has started yet.
    """
    hashes: dict[tuple[str, int], str] = {}
    first_splits: dict[str, Splits] = {}
    backbones: dict[str, Backbone] = {}
    plans = []
    for spec in specs:
        if spec.backbone not in backbones:
            backbones[spec.backbone] = plugins.backbone(spec.backbone)
            backbones[spec.backbone].tokenizer()
        backbone = backbones[spec.backbone]
        task = plugins.task(spec.task, spec.task_options)
        data = f"{spec.task}\0{task.options.model_dump_json()}"
        if (data, spec.seed) not in hashes:
            splits = task.splits(spec.seed)
            hashes[data, spec.seed] = splits_hash(splits.train, splits.eval, splits.test)
            first_splits.setdefault(data, splits)
        splits = first_splits[data]
        recipe = plugins.recipe(spec.recipe)
        resolved = resolve_run(spec, backbone, recipe)
        data_sha256, threads = hashes[data, spec.seed], thread_share(processes)
        run = identity(resolved, task, data_sha256, plugins, processes, threads)
        steps = empty_schedule(spec, len(splits.train)).planned_steps(
            spec.train.epochs, spec.train.max_steps
        )
        cell = SweepCell(spec, run, str(recipe), steps, is_done(results / run))
        plans.append(CellPlan(cell, backbone, recipe, task, splits))
    return plans


def empty_schedule(spec: RunSpec, examples: int) -> Schedule:
    """Return a run's schedule over a number of empty examples, which is enough to count steps."""
    return Schedule(
        [Example([], [])] * examples, spec.train.batch_size, spec.train.accumulation, spec.seed
    )


def earlier_seconds(
    cell_plans: Iterable[CellPlan], results: Path, processes: int = 1
) -> Mapping[str, float]:
    """Return, by cell id, the seconds of an earlier run that differs only in its seed.

    The settings, the number of planned steps and that of processes must be equal. Of several such
    runs the last one counts.
    """
    seconds_by_key: dict[tuple[str, str, str, str | None, int], float] = {}
    if results.is_dir():
        for folder in find_runs(results):
            try:
                report = read_report(folder)
            except HarnessError:
                continue
            training = report.training
            if report.status == "ok" and training and training.processes == processes:
                key = (report.backbone, report.recipe, report.task, report.settings)
                seconds_by_key[*key, training.planned_steps] = report.seconds
    seconds_by_id = {}
    for cell, backbone, recipe, task, _ in cell_plans:
        key = (backbone.name, str(recipe), task.name, cell.spec.settings_digest())
        if seconds := seconds_by_key.get((*key, cell.steps)):
            seconds_by_id[cell.id] = seconds
    return seconds_by_id
