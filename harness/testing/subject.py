"""A compressor on a tiny model: what its checks look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.backbone import Backbone
from harness.api.compressor import Compressor
from harness.api.metric import Score
from harness.api.recipe import Recipe, parse
from harness.api.registry import Registry
from harness.data.calibration import CalibrationData
from harness.data.examples import Examples, Tokens
from harness.model.composition import compose
from harness.records.run_folder import HISTORY
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.testing.families import EXAMPLES, IDS
from harness.training.build import load_trainer
from harness.training.loop import Observers, train
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.run_context import load_original, run_context
from harness.training.schedule import Schedule
from harness.training.stored_encoder import with_stored_encoder

if TYPE_CHECKING:
    from harness.api.events import StepDone
    from harness.training.trainer import Trainer

SEED = 7
STEPS = 4
_EVALUATED_EVERY = 2
RATE = 0.01


class _KilledError(Exception):
    """Ends a training in the middle of a step, as a kill does."""


@dataclass(frozen=True)
class Training:
    """A short training by the harness's own loop.

    Attributes:
        trainer: the trainer, with the best weights.
        folder: its folder.
        before: name -> value of all parameters before the first step.
        last: name -> value of all parameters after the last step.
        moved: names of the parameters that changed in any step; a method may take changes back.
        losses: the objective without dropout, before the first step and at each evaluation.
    """

    trainer: Trainer
    folder: Path
    before: dict[str, Tensor]
    last: dict[str, Tensor]
    moved: set[str]
    losses: list[float]

    @property
    def history(self) -> str:
        """The history of losses, rates and evaluations, as the run writes it."""
        return (self.folder / HISTORY).read_text("utf-8")


@dataclass
class Subject:
    """A recipe with the compressor that is checked, on one backbone.

    Attributes:
        backbone: the backbone.
        name: the compressor's name.
        text: the recipe.
        registry: the compressors, with the checked one.
        folder: an empty folder, removed after the checks.
    """

    backbone: Backbone
    name: str
    text: str
    registry: Registry = field(repr=False)
    folder: Path

    def recipe(self, text: str | None = None) -> Recipe:
        """Build the recipe anew, as another process would, or another recipe."""
        return parse(text or self.text, self.registry)

    @property
    def compressor(self) -> Compressor[Any]:
        """The compressor, built anew."""
        return next(c for c in self.recipe().compressors if c.name == self.name)

    def run(self, seed: int = SEED, text: str | None = None, **settings: Any) -> ResolvedRun:
        """Return a run of the recipe, or of another one, with settings of its training."""
        chosen: dict[str, Any] = {
            "batch_size": len(EXAMPLES),
            "epochs": STEPS,
            "eval_every_epochs": _EVALUATED_EVERY,
            "warmup_steps": 0,
            "learning_rate": RATE,
            "adapter_learning_rate": RATE,
            "weight_decay": 0.0,
            "precision": "float32",
            **settings,
        }
        recipe = self.recipe(text)
        spec = RunSpec(
            backbone=self.backbone.name,
            recipe=str(recipe),
            weights="random",
            device="cpu",
            seed=seed,
            train=TrainSettings(**chosen),
        )
        resolved = resolve_run(spec, self.backbone, recipe)
        resolved = replace(resolved, calibration=CalibrationData(EXAMPLES))
        sources, targets = [e.source for e in EXAMPLES], [e.target for e in EXAMPLES]
        examples = Examples(Tokens.of(sources), Tokens.of(targets))
        return with_stored_encoder(resolved, examples, cache=self.folder / "cache")

    def model(self, seed: int = SEED) -> PreTrainedModel:
        """Return the model with the recipe applied, in evaluation mode."""
        run = self.run(seed)
        return compose(load_original(run), run.backbone, run.recipe, run_context(run)).eval()

    def perturbed(self) -> PreTrainedModel:
        """Return the model in float64, whose trained weights are not those of the beginning.

        In float64 no error of rounding hides another.
        """
        model = self.model().double()
        perturb(model)
        return model

    @cached_property
    def training(self) -> Training:
        """An undisturbed training."""
        return self.train("undisturbed")

    def train(self, name: str, *, killed_after: int | None = None) -> Training:
        """Train for a few steps in a folder, or go on with a training that was killed there.

        Args:
            name: the name of the folder.
            killed_after: the step in which the training is killed.
        """
        run, folder = self.run(), self.folder / name
        folder.mkdir(exist_ok=True)
        trainer = load_trainer(run)
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        last: dict[str, Tensor] = {}
        moved: set[str] = set()
        losses: list[float] = []

        def evaluate() -> dict[str, Score]:
            losses.append(objective(trainer))
            last.update({n: p.detach().clone() for n, p in trainer.model.named_parameters()})
            return {"loss": Score.mean([losses[-1]], "loss", higher_is_better=False)}

        def step_done(event: StepDone) -> None:
            now = trainer.model.named_parameters()
            moved.update(n for n, p in now if n not in before or not torch.equal(p, before[n]))
            if event.step == killed_after:
                raise _KilledError

        if killed_after is None:
            losses.append(objective(trainer))
        with suppress(_KilledError):
            train(
                trainer,
                Schedule(EXAMPLES, run.spec.train.batch_size, 1, run.spec.seed),
                run.spec.train,
                evaluate=evaluate,
                best_metric="loss",
                folder=folder,
                observers=Observers(step_done, lambda _: None),
                save_state_seconds=0.0 if killed_after else 3600.0,
            )
        return Training(trainer, folder, before, last, moved, losses)


@contextmanager
def working_folder() -> Iterator[Path]:
    """Yield an empty folder for the files of the checks."""
    with TemporaryDirectory(prefix="harness-check-") as folder:
        yield Path(folder)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return name -> parameter for those that are trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Add small noise to the trained weights, always the same."""
    generator = torch.Generator().manual_seed(1)
    for parameter in trained(model).values():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(0.02 * noise.to(parameter.dtype))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    """Return the logits of two fixed examples, in evaluation mode."""
    model.eval()
    output: Tensor = model(input_ids=IDS, decoder_input_ids=IDS.flip(0)).logits
    return output


@torch.no_grad()
def objective(trainer: Trainer) -> float:
    """Return the objective of a trainer on all examples, per target token, without dropout."""
    training = trainer.model.training
    trainer.model.eval()
    batch = trainer.engine.collate(EXAMPLES)
    loss = trainer.objective.loss_sum(trainer.model, batch) / batch.target_tokens
    trainer.model.train(training)
    return float(loss)


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest value if that is > 1.

    Infinity if they have different shapes or values that are not finite.
    """
    if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    if not one.numel():
        return 0.0
    one, other = one.detach(), other.detach()
    scale = max(1.0, float(one.abs().max()))
    return float((one - other).abs().max()) / scale
