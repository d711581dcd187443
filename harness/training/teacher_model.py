"""The teacher of a run: the original model, a trained run, or another model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone, Stack
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.api.teacher import ORIGINAL
from harness.data.hashing import file_hash
from harness.errors import HarnessError
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.records.run_folder import REPORT
from harness.training.trained_run import TrainedRun, open_run
from harness.training.trained_weights import FILE as WEIGHTS


@dataclass(frozen=True)
class TeacherModel:
    """A model that another one learns from.

    Attributes:
        reference: its name in the recipe.
        backbone: its backbone.
        run: the run that trained it; None if it is a model as published.
    """

    reference: str
    backbone: Backbone
    run: TrainedRun | None = None

    @property
    def seconds(self) -> float:
        """The wall time of the run that trained it, its own teacher included; 0 if unknown."""
        if self.run is None:
            return 0.0
        return self.run.report.seconds + self.run.report.teacher_seconds

    def version(self) -> str:
        """Return a text that identifies its weights, wherever they are stored."""
        if self.run is None:
            return self.backbone.version()
        weights = self.run.folder / WEIGHTS
        if not weights.is_file():
            raise HarnessError(
                f"The teacher {self.reference!r} has no trained weights: {WEIGHTS} is missing.",
                "Name another run.",
            )
        parts = self.backbone.version(), str(self.run.recipe), file_hash(weights)
        return "run:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    def load(self) -> PreTrainedModel:
        """Load it in float32 on the CPU, as a plain model: adapters are merged.

        Raises:
            HarnessError: its weights are missing, or its adapters cannot be merged.
        """
        if self.run is None:
            return self.backbone.load("pretrained")
        return _merged(self.run.load(), self.run.recipe, self.reference)

    def skeleton(self) -> PreTrainedModel:
        """Return it without weights, and with gradients like any skeleton."""
        model = self.backbone.skeleton()
        if self.run is None:
            return model
        context = skeleton_context(self.backbone, self.run.spec.seed)
        model = compose(model, self.backbone, self.run.recipe, context)
        return _merged(model, self.run.recipe, self.reference).requires_grad_(True)

    def layers(self, model: PreTrainedModel) -> Mapping[Stack, list[int]]:
        """Return the numbers of its layers in its backbone, from 1."""
        kept = self.run.report.layers_kept if self.run else None
        if kept:
            return {"encoder": kept.encoder, "decoder": kept.decoder}
        return {s: [*range(1, len(self.backbone.layers(model, s)) + 1)] for s in STACKS}

    def check(self, student: Backbone) -> None:
        """Check that it reads the token ids of the student.

        Raises:
            HarnessError: it does not, or its weights are not available.
        """
        if self.run is None:
            self.backbone.check("pretrained")
        own, other = self.backbone.config(), student.config()
        for field in ("decoder_start_token_id", "pad_token_id"):
            if getattr(own, field) != getattr(other, field):
                raise self._stranger(student, f"its {field} is another")
        same = self.backbone.version() == student.version()
        if not same and self.backbone.tokenizer().get_vocab() != student.tokenizer().get_vocab():
            raise self._stranger(student, "its tokenizer has another vocabulary")

    def _stranger(self, student: Backbone, reason: str) -> HarnessError:
        return HarnessError(
            f"The model {self.reference!r} cannot teach {student.name}: {reason}.",
            "Choose a teacher of the same family: teacher=FOLDER",
        )


def find_teacher(recipe: Recipe) -> TeacherModel | None:
    """Return the teacher that a recipe names; None if it has none, or the original model.

    Raises:
        HarnessError: there is no such run or model.
    """
    teacher = recipe.teacher
    if teacher is None or teacher.weights == ORIGINAL:
        return None
    folder = Path(teacher.weights).expanduser()
    if (folder / REPORT).is_file():
        run = open_run(folder)
        return TeacherModel(teacher.weights, run.backbone, run)
    missing = not folder.exists() and folder.parent.is_dir() and folder.parent != Path()
    if missing or (folder.is_dir() and not (folder / "config.json").is_file()):
        raise HarnessError(
            f"The teacher {teacher.weights!r} is neither a run nor a model.",
            "Name the folder of one run, as in teacher=results/RUN, or of a model with its "
            "config.json.",
        )
    return TeacherModel(teacher.weights, installed().backbone(teacher.weights))


def teacher_skeleton(recipe: Recipe) -> PreTrainedModel | None:
    """Return the teacher of a recipe without weights; None as for ``find_teacher``."""
    teacher = find_teacher(recipe)
    return teacher.skeleton() if teacher else None


def _merged(model: PreTrainedModel, recipe: Recipe, reference: str) -> PreTrainedModel:
    try:
        for compressor in reversed(recipe.compressors):
            model = compressor.merge(model)
    except HarnessError as error:
        raise HarnessError(
            f"The run {reference!r} cannot be a teacher: its adapters cannot be merged. "
            f"{error.message}",
            "Choose a run of another recipe, for example of full.",
        ) from error
    return model
