"""Compressors that leave the model unchanged, and fail when it trains."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness import Backbone, Compressor, Context, Options, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class HungryOptions(Options):
    """Options of ``hungry``."""

    bytes_per_token: int = 4 * 2**20
    """Memory to allocate and free in every training forward pass, per token."""
    limit: int = 850 * 2**20
    """Memory that the process may use beyond what it has when the model is built."""


class Mishap(Compressor[Any]):
    """Fails in a forward pass of training."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Call ``strike`` in every training forward pass of the first layer."""

        def forward(module: Any, arguments: tuple[Tensor, ...]) -> None:
            if module.training:
                self.strike(arguments[0])

        backbone.layers(model, "encoder")[0].register_forward_pre_hook(forward)
        return model

    def strike(self, hidden: Tensor) -> None:
        """Fail; ``hidden`` holds the states of a batch's tokens."""
        raise NotImplementedError


class Hungry(Mishap):
    """Allocates more memory than a limit that it sets for its process."""

    Options = HungryOptions

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Set the limit if the model has real weights."""
        if not next(model.parameters()).is_meta:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            now = pages * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + self.options.limit, hard))
        return super().apply(model, backbone, context)

    def strike(self, hidden: Tensor) -> None:
        """Allocate memory for the batch."""
        import torch

        tokens = hidden.shape[:-1].numel()
        torch.empty(tokens * self.options.bytes_per_token, dtype=torch.uint8)


class Crash(Mishap):
    """Ends the process of the run without a message."""

    def strike(self, hidden: Tensor) -> None:
        """End the process, unless it only measures or estimates."""
        if multiprocessing.parent_process() is None and hidden.device.type != "meta":
            os._exit(7)


class Stall(Mishap):
    """Takes longer than any time limit."""

    def strike(self, hidden: Tensor) -> None:
        """Sleep, unless tensors are shapes only."""
        if hidden.device.type != "meta" and type(hidden).__name__ != "ShapeTensor":
            time.sleep(600)
