"""Compressors that change nothing about the model, and go wrong when it trains."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness import Backbone, Compressor, Options, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class HungryOptions(Options):
    """Options of ``hungry``."""

    bytes_per_token: int = 4 * 2**20
    """Taken in every forward pass in training, for a moment."""
    limit: int = 850 * 2**20
    """How much more the process may have than it has when the model is made."""


class Mishap(Compressor[Any]):
    """Goes wrong in the forward passes of training."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Be told of every forward pass of the first layer."""

        def forward(module: Any, arguments: tuple[Tensor, ...]) -> None:
            if module.training:
                self.strike(arguments[0])

        backbone.layers(model, "encoder")[0].register_forward_pre_hook(forward)
        return model

    def strike(self, hidden: Tensor) -> None:
        """Go wrong; ``hidden`` are the states of the tokens of a batch."""
        raise NotImplementedError


class Hungry(Mishap):
    """Asks the system for memory beyond a limit that it set itself."""

    Options = HungryOptions

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Set the limit, where there is a real model."""
        if not next(model.parameters()).is_meta:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            now = pages * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + self.options.limit, hard))
        return super().apply(model, backbone)

    def strike(self, hidden: Tensor) -> None:
        """Allocate."""
        import torch

        tokens = hidden.shape[:-1].numel()
        torch.empty(tokens * self.options.bytes_per_token, dtype=torch.uint8)


class Crash(Mishap):
    """Ends the process of the run itself, without a word."""

    def strike(self, hidden: Tensor) -> None:
        """Die, unless in a process that only measures or predicts."""
        if multiprocessing.parent_process() is None and hidden.device.type != "meta":
            os._exit(7)


class Stall(Mishap):
    """Takes longer than anyone waits."""

    def strike(self, hidden: Tensor) -> None:
        """Sleep, but not where there are only shapes."""
        if hidden.device.type != "meta" and type(hidden).__name__ != "ShapeTensor":
            time.sleep(600)
