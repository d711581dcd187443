"""A check of a training's engine on its first batch; a training falls back to a simpler one.

Packed rows, kernels of our own and recorded steps are there for speed, and must compute what
transformers computes on padded batches. Tests show it for the machines that they run on. Here a
training shows it for its own machine, model and compressors. Loss and gradients of one batch are
compared with those of padded batches in float32, without dropout.

The check changes no weight, no buffer and no random generator, so that a training is the same with
and without it. What compressors add to the loss is not part of it: their code may count its calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.data.examples import Example
from harness.errors import first_line, is_out_of_memory
from harness.model.contexts import preserved_random_state
from harness.spec.setting_groups import TrainSettings
from harness.training.compiling import compile_ahead
from harness.training.engines.packed import PackedEngine, choose_engine
from harness.training.engines.padded import Batch, Engine, PaddedEngine
from harness.training.engines.shapes import choose_shapes, size_of
from harness.training.python_effects import PythonState
from harness.training.schedule import Step
from harness.training.trainer import Trainer

CLOSE = {torch.float32: (1e-4, 2e-3), torch.bfloat16: (2e-3, 0.1)}
"""Largest relative distances of loss and gradients that rounding explains. An H200 showed 4e-4 for
gradients in float32 and 0.05 in bfloat16, of packed rows and of transformers alike."""
FACTOR = 2.0
"""More is allowed in low precision up to this ratio to the distance of padded batches."""
_SMALL = 0.02
"""Size of the numbers that stand in for zeros; see ``_without_dropout_and_zeros``."""


def check_engine(trainer: Trainer, settings: TrainSettings, step: Step) -> None:
    """Compile a trainer's layers, and check its engine, if the settings ask for it.

    If either fails, a simpler engine is used.

    Args:
        trainer: takes no part in a group of processes yet; its engine may be replaced.
        settings: the settings of the training.
        step: a step whose first micro-batch is computed; less of it if memory is short.
    """
    compile_ahead(trainer, step)
    examples = step.micro_batches[0]
    asked = settings.check_engine
    if asked == "off" or (asked == "auto" and trainer.device.type != "cuda"):
        return
    with preserved_random_state(), _without_dropout_and_zeros(trainer):
        while isinstance(trainer.engine, PackedEngine):
            try:
                _check(trainer, trainer.engine, examples)
                return
            except Exception as error:  # A compressor's modules may raise errors of any type.
                if not is_out_of_memory(error) or len(examples) == 1:
                    trainer.fallbacks.append(
                        f"The engine was not compared with padded batches: {_reason(error)}."
                    )
                    return
            _free(trainer.device)
            examples = examples[: len(examples) // 2]


def _check(trainer: Trainer, engine: PackedEngine, examples: Sequence[Example]) -> None:
    """Check packing, then compiled layers or recorded steps.

    Raises:
        Exception: the padded batch cannot be computed, or memory is short for the packed one.
    """
    expected = _padded(trainer, engine, examples, torch.float32)
    if not expected.loss.isfinite():
        return  # No engine could be close to it.
    before = PythonState(trainer.model, trainer.events.compressors)
    try:
        found = _packed(trainer, engine.collate(examples))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        use_padded_batches(trainer, engine, _reason(error))
        return
    effect = before.change()
    before.restore()
    limits = CLOSE[engine.dtype]
    far = expected.far_from(found, limits)
    if far and engine.dtype != torch.float32:
        library = expected.distances(_padded(trainer, engine, examples, engine.dtype))
        limits = max(limits[0], FACTOR * library[0]), max(limits[1], FACTOR * library[1])
        far = expected.far_from(found, limits)
    if far:
        use_padded_batches(trainer, engine, far)
    elif engine.compiled is not None and engine.compiled.in_use:
        with engine.compiled.outside_of_training():
            found = _packed(trainer, engine.collate(examples))
        if (far := expected.far_from(found, limits)) and engine.compiled.in_use:
            engine.compiled.give_up(far)
    elif trainer.graphs is not None and trainer.uses_graphs:
        reason = effect or _recording_failure(trainer, engine, examples, expected, limits)
        if reason:
            trainer.graphs.give_up(reason)


@dataclass(frozen=True)
class _Result:
    """Loss per target token and gradients of a batch.

    Attributes:
        loss: a float32 scalar.
        gradients: qualified name -> gradient of each trained parameter that has one.
    """

    loss: Tensor
    gradients: dict[str, Tensor]

    def distances(self, other: _Result) -> tuple[float, float]:
        """Return relative distances of the losses, and of all gradients as one vector."""
        loss = (other.loss - self.loss).abs() / self.loss.abs()
        squared, norms = [], []
        for name, gradient in self.gradients.items():
            squared.append((other.gradients[name] - gradient).float().norm())
            norms.append(gradient.float().norm())
        gradients = torch.stack(squared).norm() / torch.stack(norms).norm().clamp(min=1e-30)
        return float(loss), float(gradients)

    def far_from(self, other: _Result, limits: tuple[float, float]) -> str | None:
        """Return the reason why another result is not close to this one, or None if it is.

        Args:
            other: the result of a faster engine.
            limits: the largest relative distances of losses and of gradients.
        """
        if names := self.gradients.keys() ^ other.gradients.keys():
            return f"only one of it and padded batches gives {min(names)} a gradient"
        distances = self.distances(other)
        for name, distance, most in zip(("loss", "gradient"), distances, limits, strict=True):
            if not distance <= most:  # Nor is a value that is not a number.
                return f"its {name} differs by {distance:.2g} of that of padded batches"
        return None


def _result(trainer: Trainer, engine: Engine, batch: Batch) -> _Result:
    with torch.enable_grad():
        loss = engine.loss_sum(trainer.model, batch) / batch.target_tokens
        # Not backward(), which would add to the gradients and call hooks on them.
        parameters = [*trainer.trained.values()]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    named = zip(trainer.trained, gradients, strict=True)
    return _Result(loss.detach(), {name: g for name, g in named if g is not None})


def _packed(trainer: Trainer, batch: Batch) -> _Result:
    return _result(trainer, trainer.engine, batch.to(trainer.device))


def _padded(
    trainer: Trainer, engine: PackedEngine, examples: Sequence[Example], dtype: torch.dtype
) -> _Result:
    pad = trainer.model.config.pad_token_id
    padded = PaddedEngine(pad, dtype, engine.device.type, label_smoothing=engine.label_smoothing)
    padded.further = engine.further
    with trainer.unpatched():
        return _result(trainer, padded, padded.collate(examples).to(trainer.device))


def _recording_failure(
    trainer: Trainer,
    engine: PackedEngine,
    examples: Sequence[Example],
    expected: _Result,
    limits: tuple[float, float],
) -> str | None:
    """Return why a recorded pass fails, on a batch that is filled up to a shape; None if not."""
    assert trainer.graphs is not None
    by_rows = engine.attends_to_rows(trainer.model)
    engine.shapes = choose_shapes([size_of(examples)], 1, by_rows)
    batch = engine.collate(examples).to(trainer.device)
    engine.shapes = None
    found: list[_Result] = []

    def compute() -> None:
        found[:] = [_result(trainer, engine, batch)]

    try:
        compute()  # Kernels that such a batch needs are loaded before the recording.
        recording = trainer.graphs.rehearse(compute)
        far = expected.far_from(found[0], limits)
        del recording
    except Exception as error:  # Kernels, drivers and libraries raise errors of any type.
        found.clear()
        _free(trainer.device)
        return _reason(error)
    return far


def use_padded_batches(trainer: Trainer, engine: PackedEngine, reason: str) -> None:
    """Train on padded batches from now on."""
    objective = trainer.objective
    trainer.engine = _padding(engine, trainer.model)
    teacher_engine = objective.teacher_engine
    if objective.teacher is not None and isinstance(teacher_engine, PackedEngine):
        teacher_engine = _padding(teacher_engine, objective.teacher)
    objective.use(trainer.engine, teacher_engine)
    trainer.graphs, trainer.graph_obstacle = None, "the batches are padded"
    trainer.packing_obstacle = reason
    trainer.fallbacks.append(f"Batches were padded, because packing failed a check: {reason}.")


def _padding(engine: PackedEngine, model: PreTrainedModel) -> Engine:
    """Return the engine that pads in place of one that packs, whose patches are undone."""
    padding = choose_engine(
        model,
        engine.backbone,
        device=engine.device,
        dtype=engine.dtype,
        pad_token_id=model.config.pad_token_id,
        packing="off",
        label_smoothing=engine.label_smoothing,
    )
    padding.further = engine.further
    return padding


@contextmanager
def _without_dropout_and_zeros(trainer: Trainer) -> Iterator[None]:
    """Turn dropout off, and replace trained zeros, in the context.

    A new adapter is the product of two matrices of which one is zero. The other has no gradient
    then, so that a mistake in it would not show.
    """
    model = trainer.model
    modes = [(module, module.training) for module in model.modules()]
    zeros = [p for p in trainer.trained.values() if not p.detach().any()]
    kept = [(x, x.detach().clone()) for x in (*zeros, *model.buffers())]
    generator = torch.Generator().manual_seed(0)
    try:
        model.eval()
        for parameter in zeros:
            drawn = torch.randn(parameter.shape, generator=generator) * _SMALL
            parameter.data.copy_(drawn)
        yield
    finally:
        for tensor, values in kept:
            tensor.data.copy_(values)
        for module, training in modes:
            module.training = training


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
