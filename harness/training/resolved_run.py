"""A run as this machine executes it: ``auto`` is replaced once, by what it stands for here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.data.calibration import CalibrationData
from harness.data.stored_rows import StoredRows
from harness.data.top_logits import TopLogits
from harness.errors import HarnessError
from harness.spec.run_spec import RunSpec
from harness.training.engines.fused_attention import without_cudnn_attention

NARROW = 256
"""Hidden size below which a CPU is no faster in bfloat16. With nano-t5's hidden size of 128, a step
in float32 took 0.77 to 0.88 of the time and 0.6 to 0.8 of the memory of a step in bfloat16
(``make bench``). With 256 and more, bfloat16 was faster by at least a third."""


@dataclass(frozen=True)
class ResolvedRun:
    """A spec with its backbone and its recipe built, its device and its data type chosen.

    Attributes:
        spec: the settings. They name the device and the precision, so that a process that gets
            the spec resolves it to the same run. Only ``train.checkpointing`` may still be
            ``auto``. It counts as off until ``harness.costs.fit.resolve_checkpointing`` has
            compared the memory estimate with the memory that is free.
        backbone: built from the spec's reference.
        recipe: built from the spec's text.
        device: the device to train on.
        dtype: the data type of matrix products.
        calibration: examples for compressors that look at data; None gives them random tokens.
        taught: logits that a teacher computed before training; None if they were not computed.
        encoded: outputs of the encoder that were computed before training; None if they were not.
    """

    spec: RunSpec
    backbone: Backbone
    recipe: Recipe
    device: torch.device
    dtype: torch.dtype
    calibration: CalibrationData | None = None
    taught: TopLogits | None = None
    encoded: StoredRows | None = None

    @property
    def checkpointing(self) -> bool:
        """Return whether the backward pass recomputes activations."""
        return self.spec.train.checkpointing == "on"

    @property
    def shared_beams(self) -> bool:
        """Return whether the beams of an example may share a cache."""
        return self.backbone.shared_beams and self.recipe.shares_beams

    def with_checkpointing(self, checkpointing: Literal["on", "off"]) -> ResolvedRun:
        """Return the run with activation checkpointing decided."""
        train = self.spec.train.model_copy(update={"checkpointing": checkpointing})
        return replace(self, spec=self.spec.model_copy(update={"train": train}))

    def with_parallel(self, parallel: Literal["ddp", "fsdp"]) -> ResolvedRun:
        """Return the run with the way decided in which several processes share the model."""
        train = self.spec.train.model_copy(update={"parallel": parallel})
        return replace(self, spec=self.spec.model_copy(update={"train": train}))

    def with_micro_batch(self, micro_batch: int) -> ResolvedRun:
        """Return the run with smaller micro-batches; see ``RunSpec.with_micro_batch``."""
        return replace(self, spec=self.spec.with_micro_batch(micro_batch))


def resolve_run(spec: RunSpec, backbone: Backbone, recipe: Recipe) -> ResolvedRun:
    """Choose the device and the data type of a run on this machine.

    Args:
        spec: the settings as requested.
        backbone: the spec's.
        recipe: what to train with; the spec's own is not read.

    Raises:
        HarnessError: there is no such device, or the backbone overflows in the precision.
    """
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.train.precision, device, backbone)
    train = spec.train.model_copy(update={"precision": str(dtype).removeprefix("torch.")})
    resolved = spec.model_copy(update={"device": device.type, "train": train})
    return ResolvedRun(resolved, backbone, recipe, device, dtype)


def choose_device(requested: str) -> torch.device:
    """Return the device to train on; ``auto`` is this process's GPU if there is one, else the CPU.

    On CUDA it also turns cuDNN's attention off, see ``without_cudnn_attention``.

    Raises:
        HarnessError: CUDA was requested and is not available.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise HarnessError(
            "There is no CUDA device here.", "Leave out --set device=cuda, or --set device=cpu"
        )
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    if requested == "cuda":
        without_cudnn_attention()
    return torch.device(requested)


def choose_dtype(requested: str, device: torch.device, backbone: Backbone) -> torch.dtype:
    """Return the precision of matrix products.

    ``auto`` is bfloat16 if the device multiplies it natively and the backbone trains safely in it,
    else float32. On a CPU, narrow models are trained in float32, see ``NARROW``.

    Args:
        requested: ``auto``, ``bfloat16`` or ``float32``.
        device: the device that trains.
        backbone: names the precisions that are safe for it.

    Raises:
        HarnessError: the backbone overflows in the requested precision.
    """
    if requested != "auto":
        if requested not in backbone.safe_dtypes:
            raise HarnessError(
                f"{backbone.name} overflows in {requested}.",
                f"Safe: --set train.precision={' or '.join(sorted(backbone.safe_dtypes))}",
            )
        return torch.bfloat16 if requested == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = native and backbone.config().hidden_size >= NARROW
    return torch.bfloat16 if native and "bfloat16" in backbone.safe_dtypes else torch.float32
