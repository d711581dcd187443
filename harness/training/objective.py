"""The objective of a training: cross-entropy, and what compressors add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.backbone import Stack
from harness.api.compressor import Compressor
from harness.api.teacher import ORIGINAL
from harness.data.examples import Example
from harness.records.report import LayersKept
from harness.training.engines.packed import choose_engine
from harness.training.engines.padded import STATES, Batch, Engine, FurtherTensors
from harness.training.resolved_run import ResolvedRun
from harness.training.stored_encoder import encoder_rows
from harness.training.stored_teacher import IDS, LOGITS, batch_rows
from harness.training.teacher_model import TeacherModel, find_teacher


@dataclass
class Objective:
    """The loss of a batch.

    Attributes:
        engine: runs the model in training.
        additions: the compressors that add to the loss.
        hidden_states: whether one of them needs the states after each layer.
        teacher: the teacher, frozen and on the device, if one of them needs it.
        teacher_engine: runs the teacher on the engine's batches.
        layers: stack -> numbers of the model's layers in the backbone.
        teacher_layers: stack -> those of the teacher's layers.
    """

    engine: Engine
    additions: tuple[Compressor[Any], ...] = ()
    hidden_states: bool = False
    teacher: PreTrainedModel | None = None
    teacher_engine: Engine | None = None
    layers: Mapping[Stack, list[int]] = field(default_factory=dict)
    teacher_layers: Mapping[Stack, list[int]] = field(default_factory=dict)

    def use(self, engine: Engine, teacher_engine: Engine | None) -> None:
        """Run the model, and the teacher if there is one, by other engines from now on."""
        self.engine, self.teacher_engine = engine, teacher_engine

    def dropout_context(self) -> AbstractContextManager[object]:
        """Return the context that dropout needs with the engine of the moment."""
        return self.engine.dropout_context()

    def release_teacher(self) -> None:
        """Free the memory of the teacher after training."""
        self.teacher = self.teacher_engine = None

    @property
    def teacher_tensors(self) -> list[Tensor]:
        """The weights and buffers of the teacher; empty if there is none."""
        return [*self.teacher.parameters(), *self.teacher.buffers()] if self.teacher else []

    def loss_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the loss summed over the target tokens of a micro-batch, in nats."""
        if not self.additions:
            return self.engine.loss_sum(model, batch)
        outputs = self.engine.forward(model, batch, self.hidden_states)
        outputs.add(layers=self.layers)
        if IDS in batch.tensors:
            outputs.add(top=(batch.tensors[IDS].long(), batch.tensors[LOGITS].float()))
        if self.teacher is not None and self.teacher_engine is not None:
            with torch.no_grad():
                taught = self.teacher_engine.forward(
                    self.teacher, _with_sources(batch), self.hidden_states
                )
            taught.add(layers=self.teacher_layers)
            outputs.add(teacher=taught)
        loss = outputs.cross_entropy
        for compressor in self.additions:
            addition = compressor.loss(model, batch, outputs)
            if addition is not None:
                loss = loss + addition
        return loss


class LossSum(nn.Module):
    """The summed loss of a batch as a module, which torch's data parallelism can wrap."""

    def __init__(self, model: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss summed over the target tokens; that of a filler is 0."""
        loss = self.objective.loss_sum(self.model, batch)
        return loss * 0 if batch.filler else loss


def make_objective(
    run: ResolvedRun,
    engine: Engine,
    layers_kept: LayersKept,
    teacher: PreTrainedModel | None = None,
) -> Objective:
    """Return the objective of a run, and move the teacher to the device.

    Args:
        run: the settings, the backbone and the recipe.
        engine: the engine of the model in training.
        layers_kept: the layers that the recipe kept.
        teacher: the teacher, frozen.
    """
    compressors = run.recipe.compressors
    additions = tuple(c for c in compressors if type(c).loss is not Compressor.loss)
    objective = Objective(engine, additions, "hidden_states" in run.recipe.needs)
    engine.further = _joined(batch_rows(run), encoder_rows(run))
    objective.layers = {"encoder": layers_kept.encoder, "decoder": layers_kept.decoder}
    if teacher is None:
        return objective
    teacher = teacher.to(run.device)
    described = find_teacher(run.recipe) or TeacherModel(ORIGINAL, run.backbone)
    objective.teacher = teacher
    objective.teacher_layers = described.layers(teacher)
    objective.teacher_engine = choose_engine(
        teacher,
        described.backbone,
        device=run.device,
        dtype=run.dtype,
        pad_token_id=teacher.config.pad_token_id,
        # Its batches are those of the model in training.
        packing="on" if engine.name == "packed" else "off",
    )
    return objective


def _with_sources(batch: Batch) -> Batch:
    """Return a batch without outputs of the student's encoder, which are not the teacher's."""
    tensors = {name: tensor for name, tensor in batch.tensors.items() if name != STATES}
    return replace(batch, tensors=tensors)


def _joined(*functions: FurtherTensors | None) -> FurtherTensors | None:
    """Return a function that returns the tensors of several; None if there is none."""
    present = [function for function in functions if function is not None]

    def tensors(examples: Sequence[Example]) -> dict[str, Tensor]:
        return {k: v for function in present for k, v in function(examples).items()}

    return tensors if present else None
