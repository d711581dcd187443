"""What ``harness profile`` finds: speed and memory of recipes on a device, without training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.reporting.report import (
    Failure,
    Fingerprint,
    LayersKept,
    Memory,
    Parameters,
    Record,
    Speed,
)


class TimeParts(Record):
    """Seconds of a training step by part, measured apart from the speed."""

    data: float
    """Waiting for the batch, which another thread makes."""
    forward: float
    """Forward pass and loss."""
    backward: float
    """Backward pass."""
    optimizer: float
    """Clipping, optimizer, dropping the gradients."""


class MemoryParts(Record):
    """Bytes in a training step by part, on the longest batch."""

    weights: int
    """Weights and buffers."""
    gradients: int
    """Gradients of the trained weights."""
    optimizer: int
    """The optimizer's state."""
    activations: int
    """What the forward pass leaves for the backward pass."""


class ProfiledRecipe(Record):
    """One recipe."""

    recipe: str
    """In canonical form."""
    status: Literal["ok", "oom", "error"]
    """How it ended."""
    failure: Failure | None = None
    """Set unless the status is ok."""
    layers_kept: LayersKept | None = None
    """Null if it could not be built."""
    parameters: Parameters | None = None
    """Null if it could not be built."""
    speed: Speed | None = None
    """Null if it did not fit."""
    memory: Memory | None = None
    """Null if it did not fit."""
    flop_limit_relative_speed: float
    """What the relative speed would be if only matrix products took time."""
    share_of_limit: float | None = None
    """Measured relative speed / its limit; null without a baseline."""
    time_parts: TimeParts | None = None
    """Null if it did not fit."""
    memory_parts: MemoryParts | None = None
    """Null if it did not fit."""


class Profile(Record):
    """Recipes on one backbone and one device."""

    schema_version: int = 1
    """Version of this record's form."""
    backbone: str
    """Its name."""
    task: str
    """Whose lengths the batches have."""
    batches: Literal["drawn from the task's length profile", "the task's own data"]
    """Where the batches come from."""
    batch_size: int
    """Examples in a micro-batch."""
    accumulation: int
    """Micro-batches in an optimizer step."""
    mean_source_tokens: float
    """Of the timed batches."""
    mean_target_tokens: float
    """Of the timed batches."""
    fingerprint: Fingerprint
    """What the numbers depend on."""
    recipes: list[ProfiledRecipe] = Field(default_factory=list)
    """In the order asked for."""
