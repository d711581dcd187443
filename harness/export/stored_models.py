"""Stored form of one trained model: of a run, exported for a moment, or of an export."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.export.file_kinds import FileBytes, measure, subtract
from harness.export.forms import find_form
from harness.export.manifest import Form, Manifest
from harness.export.request import ExportRequest
from harness.export.workspace import Workspace

if TYPE_CHECKING:
    from harness.training.trained_run import TrainedRun


@dataclass(frozen=True)
class StoredModel:
    """Bytes of one trained model on disk.

    Attributes:
        backbone: the original model.
        recipe: the recipe that it was trained with.
        task: the task that it was trained on.
        form: the form in which it is stored.
        own: the files that this task has for itself.
        base: of an adapter: the files of its base.
        base_sha256: of an adapter: hash of the weights of its base, or the original's version.
    """

    backbone: str
    recipe: str
    task: str
    form: Form
    own: FileBytes
    base: FileBytes | None = None
    base_sha256: str | None = None


def measure_run(run: TrainedRun) -> StoredModel:
    """Export the model of a run into a temporary folder, and measure the files.

    It is exported as an adapter with its base if the recipe has one that PEFT can hold, and merged
    otherwise. The export is not checked and has no card: only its size is of interest.

    Raises:
        HarnessError: it can be exported in neither form, or has no weights.
    """
    form = _form(run)
    with tempfile.TemporaryDirectory(prefix="harness-storage-") as place:
        request = _request(Path(place), form)
        with Workspace(request.out) as workspace:
            written = find_form(form).write(run, run.load(), workspace, request)
            workspace.commit()
        return StoredModel(
            backbone=run.report.backbone,
            recipe=run.report.recipe,
            task=run.report.task,
            form=form,
            own=measure(request.out),
            base=measure(request.base) if request.base else None,
            base_sha256=written.base_sha256,
        )


def measure_original(run: TrainedRun) -> FileBytes:
    """Write the original model of a run into a temporary folder, and measure the files.

    A model that is fine-tuned fully has weights of the same shapes, and so files of the same size.
    """
    from harness.export.stock_model import generation_settings, save_model

    folder = Path(tempfile.mkdtemp(prefix="harness-storage-"))
    try:
        model = run.original()
        model.generation_config = generation_settings(model.generation_config, run.spec.test)
        save_model(model, str(folder), "float32")
        run.tokenizer.save_pretrained(folder)
        return measure(folder)
    finally:
        shutil.rmtree(folder)


def measure_export(folder: Path, manifest: Manifest) -> StoredModel:
    """Measure the files of an exported folder, and of its base.

    Raises:
        HarnessError: the base of an adapter is not a folder here.
    """
    own, base = measure(folder), None
    if manifest.base is not None:
        place = folder / manifest.base  # An absolute path stays what it is.
        if not place.is_dir():
            raise HarnessError(
                f"The base of the adapter {str(folder)!r} is not here: {manifest.base}.",
                "Name the folder of the run instead, or rebuild the base there.",
            )
        base = measure(place)
        if place.resolve().is_relative_to(folder.resolve()):
            own = subtract(own, base)
    return StoredModel(
        backbone=manifest.backbone,
        recipe=manifest.recipe,
        task=manifest.task,
        form=manifest.form,
        own=own,
        base=base,
        base_sha256=manifest.base_sha256 or manifest.backbone_version,
    )


def _form(run: TrainedRun) -> Form:
    forms: tuple[Form, ...] = ("adapter", "merged")
    for form in forms:
        try:
            find_form(form).validate(run, _request(Path("unused"), form))
        except HarnessError:
            if form == forms[-1]:
                raise
        else:
            return form
    raise AssertionError


def _request(place: Path, form: Form) -> ExportRequest:
    return ExportRequest(
        out=place / "model", form=form, base=place / "base" if form == "adapter" else None
    )
