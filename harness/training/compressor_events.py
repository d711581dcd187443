"""The events of a training, as compressors receive them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from harness.api.backbone import Backbone
from harness.api.compressor import Compressor
from harness.errors import HarnessError
from harness.records.report import StructureChange


@dataclass
class CompressorEvents:
    """Calls the compressors of a recipe during training.

    Attributes:
        compressors: the compressors, in the order of application.
        steps_done: optimizer steps done.
        total_steps: optimizer steps that are planned; None until ``begin`` is called.
    """

    compressors: tuple[Compressor[Any], ...]
    steps_done: int = 0
    total_steps: int | None = None

    @property
    def changing(self) -> list[Compressor[Any]]:
        """The compressors that may change the structure."""
        return [c for c in self.compressors if type(c).change_after is not Compressor.change_after]

    def check_processes(self, size: int) -> None:
        """Check that the compressors work in a number of processes.

        Raises:
            HarnessError: one of them may change the structure, and there are several processes.
        """
        if size > 1 and self.changing:
            raise HarnessError(
                f"{self.changing[0].name} changes the model during training, which works in one "
                "process only.",
                "Leave out --nproc.",
            )

    def begin(self, model: PreTrainedModel, total_steps: int) -> None:
        """Call the compressors before the first step.

        Args:
            model: the composed model.
            total_steps: optimizer steps that are planned. More steps than that count as the last.
        """
        self.steps_done, self.total_steps = 0, total_steps
        for compressor in self.compressors:
            compressor.on_train_start(model, total_steps)

    def step_taken(self, model: PreTrainedModel, trained: Mapping[str, nn.Parameter]) -> None:
        """Call the compressors after an optimizer step, if the training has begun.

        Args:
            model: the model in training.
            trained: qualified name -> trained parameter.

        Raises:
            HarnessError: one of them changed which parameters are trained. The optimizer, the saved
                weights and the report would not follow.
        """
        if self.total_steps is None:
            return
        self.steps_done = min(self.steps_done + 1, self.total_steps)
        acting = [c for c in self.compressors if type(c).on_step is not Compressor.on_step]
        if not acting:
            return
        with torch.no_grad():
            for compressor in acting:
                compressor.on_step(model, self.steps_done)
        now = {id(p) for p in model.parameters() if p.requires_grad}
        if now != {id(p) for p in trained.values()}:
            names = " or ".join(compressor.name for compressor in acting)
            raise HarnessError(
                f"{names} changed in step {self.steps_done} which parameters are trained.",
                "This is a mistake in the compressor: on_step may change the values of weights and "
                "buffers; modules and requires_grad change in apply and make_change.",
            )

    def changes(self, model: PreTrainedModel, backbone: Backbone) -> list[StructureChange]:
        """Ask the compressors for changes of the structure after a step, which are not yet made."""
        if self.total_steps is None:
            return []
        step = self.steps_done
        with torch.no_grad():
            found = [(c.name, c.change_after(model, backbone, step)) for c in self.changing]
        return [
            StructureChange(step=step, compressor=name, change=dict(change))
            for name, change in found
            if change is not None
        ]

    def evaluated(self, model: PreTrainedModel, step: int, scores: Mapping[str, float]) -> None:
        """Call the compressors after the eval split was scored; see their ``on_evaluate``."""
        for compressor in self.compressors:
            compressor.on_evaluate(model, step, scores)
