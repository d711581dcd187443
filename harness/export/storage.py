"""Storage of many tasks, measured on exported files, from Python: ``harness.storage``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from harness.errors import HarnessError
from harness.export.file_kinds import FileBytes
from harness.export.manifest import FILE, Form, read_manifest
from harness.export.stored_models import (
    StoredModel,
    measure_export,
    measure_original,
    measure_run,
)
from harness.records.record import Record
from harness.records.run_folder import StoredRun, read_runs

if TYPE_CHECKING:
    from harness.training.trained_run import TrainedRun

TASKS = (1, 2, 5, 10)
"""Numbers of tasks that storage is computed for."""


class StorageSum(Record):
    """Bytes that a number of tasks need, computed from measured files."""

    tasks: int
    """Number of tasks."""
    total_bytes: int
    """tasks x bytes_per_task + base_bytes."""
    relative_to_full: float | None
    """total_bytes / that of full fine-tuning; null if that is not known."""


class RecipeStorage(Record):
    """Files of the models of one recipe."""

    recipe: str
    """Recipe in canonical form."""
    form: Form
    """Form in which the models are stored."""
    measured: dict[str, FileBytes]
    """Task -> bytes of the files that it has for itself."""
    base: FileBytes | None
    """Bytes of the files of the base, which the tasks share; null if there is none."""
    bytes_per_task: int
    """Mean of ``measured``, with a base for each task if the bases differ."""
    base_bytes: int
    """Bytes that are stored once; 0 if nothing is shared."""
    base_is_shared: bool | None
    """True if the bases of all measured tasks are equal; null if there is none."""
    sums: list[StorageSum]
    """Storage of several numbers of tasks."""


class StorageOfTasks(Record):
    """Storage of many tasks with one backbone: measured files, and sums computed from them."""

    backbone: str
    """The backbone."""
    full: FileBytes | None
    """Bytes of one model of full fine-tuning; null if not known."""
    full_measured_on: str
    """The files behind ``full``: those of a trained model, or of the original, whose size is the
    same."""
    recipes: list[RecipeStorage]
    """The recipes, in the order of their storage for the most tasks."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Folder -> reason why it was not measured."""


def storage(
    runs: str | Path | Iterable[str | Path],
    *,
    tasks: Sequence[int] = TASKS,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[StorageOfTasks]:
    """Compute what many tasks need on disk: a model for each, or a base and an adapter for each.

    The files are measured. One run of each recipe and task is exported into a temporary folder,
    which is removed again; several seeds have files of the same size.

    Args:
        runs: folders of runs, results folders, or folders that ``harness export`` wrote.
        tasks: the numbers of tasks to compute for; the number that was measured is added.
        on_progress: is called with the name of each run that is exported.

    Returns:
        The storage of each backbone.

    Raises:
        HarnessError: nothing can be measured.

    Example:
        >>> [storage] = harness.storage("results")
        >>> storage.recipes[0].sums[-1].relative_to_full
    """
    if not tasks or min(tasks) < 1:
        raise HarnessError("Storage is computed for one task or more.", "--tasks 1,2,5,10")
    places = [runs] if isinstance(runs, (str, Path)) else list(runs)
    models: list[StoredModel] = []
    opened: dict[str, TrainedRun] = {}
    skipped: dict[str, str] = {}
    for folder, measure_one in _find([Path(place).expanduser() for place in places], opened):
        on_progress(folder.name)
        try:
            models.append(measure_one())
        except HarnessError as error:
            skipped[str(folder)] = error.message
    if not models:
        reason = next(iter(skipped.values()), "They hold no run that ended well, and no export.")
        raise HarnessError(
            f"No files can be measured in {', '.join(map(str, places))}: {reason}",
            "Name folders that harness run or harness export wrote.",
        )
    backbones = sorted({model.backbone for model in models})
    return [
        _sum_up([m for m in models if m.backbone == name], opened.get(name), tasks, skipped)
        for name in backbones
    ]


def _find(
    places: Sequence[Path], opened: dict[str, TrainedRun]
) -> Iterator[tuple[Path, Callable[[], StoredModel]]]:
    """Yield each folder with the function that measures it; add opened runs by their backbone."""
    stored: list[StoredRun] = []
    for place in places:
        manifests = [place / FILE] if (place / FILE).is_file() else sorted(place.glob(f"*/{FILE}"))
        for path in manifests:
            yield path.parent, partial(_measure_exported, path.parent)
        if not manifests:
            stored += read_runs(place)[0]
    seen = set()
    for run in sorted(stored, key=lambda run: run.report.seed):
        report = run.report
        key = (report.backbone, report.recipe, report.task)
        if report.status == "ok" and report.training and key not in seen:
            seen.add(key)
            yield run.folder, partial(_measure_trained, run.folder, opened)


def _measure_exported(folder: Path) -> StoredModel:
    manifest = read_manifest(folder)
    assert manifest is not None
    return measure_export(folder, manifest)


def _measure_trained(folder: Path, opened: dict[str, TrainedRun]) -> StoredModel:
    from harness.training.trained_run import open_run

    run = open_run(folder)
    model = measure_run(run)
    opened[model.backbone] = run
    return model


def _sum_up(
    models: Sequence[StoredModel],
    run: TrainedRun | None,
    tasks: Sequence[int],
    skipped: dict[str, str],
) -> StorageOfTasks:
    full, measured_on = None, "not known: name a run or an export of the recipe full"
    trained = [m for m in models if m.recipe == "full" and m.form == "merged"]
    if trained:
        full, measured_on = trained[0].own, "a trained model"
    elif run is not None:
        full, measured_on = measure_original(run), "the original, whose size is the same"
    numbers = sorted({*tasks, len({model.task for model in models})})
    kinds = sorted({(model.recipe, model.form) for model in models})
    recipes = [
        _recipe([m for m in models if (m.recipe, m.form) == kind], numbers, full) for kind in kinds
    ]
    return StorageOfTasks(
        backbone=models[0].backbone,
        full=full,
        full_measured_on=measured_on,
        recipes=sorted(recipes, key=lambda recipe: -recipe.sums[-1].total_bytes),
        skipped=skipped,
    )


def _recipe(
    models: Sequence[StoredModel], numbers: Sequence[int], full: FileBytes | None
) -> RecipeStorage:
    base, shared = models[0].base, None
    each = [model.own.total for model in models]
    once = 0
    if base is not None:
        shared = len({model.base_sha256 for model in models}) == 1
        once = base.total if shared else 0
        each = each if shared else [m.own.total + (m.base.total if m.base else 0) for m in models]
    per_task = round(sum(each) / len(each))
    return RecipeStorage(
        recipe=models[0].recipe,
        form=models[0].form,
        measured={model.task: model.own for model in models},
        base=base,
        bytes_per_task=per_task,
        base_bytes=once,
        base_is_shared=shared,
        sums=[
            StorageSum(
                tasks=number,
                total_bytes=(total := number * per_task + once),
                relative_to_full=total / (number * full.total) if full else None,
            )
            for number in numbers
        ],
    )
