"""What a sweep will do, known before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.backbone import Backbone
from harness.errors import HarnessError
from harness.evaluation.scoring import data_hash
from harness.identity import identity
from harness.options import validate
from harness.plugins import Plugins
from harness.recipe import parse
from harness.reporting.folder import find_runs, is_done, read_report
from harness.spec import RunSpec
from harness.sweep.sweep import Cell
from harness.task import Task
from harness.training.examples import Example
from harness.training.schedule import Schedule


def survey(specs: Sequence[RunSpec], plugins: Plugins, results: Path) -> list[Cell]:
    """Find out what each run is, and whether it is done.

    Args:
        specs: of the runs.
        plugins: what there is.
        results: folder of all runs.

    Raises:
        HarnessError: data or tokenizers that are not there; better now than in the middle.
    """
    data: dict[str, tuple[int, str]] = {}
    backbones: dict[str, Backbone] = {}
    cells = []
    for spec in specs:
        if spec.backbone not in backbones:
            backbones[spec.backbone] = plugins.backbones.find(spec.backbone).load()(spec.backbone)
            backbones[spec.backbone].tokenizer()
        task_class = plugins.tasks.find(spec.task).load()
        options = validate(task_class.Options, spec.task_options, f"task {spec.task!r}")
        task: Task[Any] = task_class(spec.task, options)
        key = f"{spec.task}\0{options.model_dump_json()}\0{spec.seed}"
        if key not in data:
            splits = task.splits(spec.seed)
            data[key] = (len(splits.train), data_hash(splits.train, splits.eval, splits.test))
        examples, sha256 = data[key]
        recipe = parse(spec.recipe, plugins.compressors)
        run = identity(spec, backbones[spec.backbone], recipe, task, sha256, plugins)
        settings = spec.train
        schedule = Schedule(
            [Example([], [])] * examples,  # Only their number matters.
            settings.batch_size,
            settings.accumulation,
            spec.seed,
        )
        steps = schedule.planned_steps(settings.epochs, settings.max_steps)
        cells.append(Cell(spec, run, str(recipe), steps, is_done(results / run)))
    return cells


def earlier_seconds(cells: Iterable[Cell], results: Path) -> Mapping[str, float]:
    """Return cell's id -> seconds that the same took before, with another seed or other data.

    Runs count that were planned for as many steps and settings; of several the last.
    """
    took: dict[tuple[str, str, str | None, int], float] = {}
    if results.is_dir():
        for folder in find_runs(results):
            try:
                report = read_report(folder)
            except HarnessError:
                continue
            if report.status == "ok" and report.training:
                key = (report.backbone, report.recipe, report.settings)
                took[*key, report.training.planned_steps] = report.seconds
    known = {}
    for cell in cells:
        name = cell.spec.backbone.rstrip("/").split("/")[-1]
        key = (name, cell.recipe, cell.spec.settings_digest())
        if seconds := took.get((*key, cell.steps)):
            known[cell.id] = seconds
    return known
