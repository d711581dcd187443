"""Record of ``harness profile``: speed and memory of recipes on a device, without training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.measurements import Fingerprint, Memory, MemoryParts, Speed
from harness.records.record import Record
from harness.records.report import Failure, LayersKept, Parameters

BatchesOf = Literal["drawn from the task's length profile", "the task's own data"]
"""Where batches come from."""


class MemoryEstimate(Record):
    """Peak memory worked out from shapes, for the longest batch."""

    peak_bytes: int
    """CUDA: bytes in tensors. CPU: these and the process."""
    tensor_bytes: int
    """Bytes in tensors."""
    process_bytes: int | None
    """CPU: what is resident beside tensors: interpreter, libraries and their buffers, as of the
    process that predicted after a step of a small model. Null on CUDA."""
    parts: MemoryParts
    """What the tensors are for."""
    engine: str
    """How batches go through the model: packed or padded."""
    dtype: str
    """What matrix products are computed in."""
    batch_size: int
    """Examples in a batch."""
    source_tokens: int
    """Of the longest optimizer step."""
    target_tokens: int
    """Of the longest optimizer step."""


class ProfiledRecipe(Record):
    """One recipe."""

    recipe: str
    """In canonical form."""
    status: Literal["ok", "oom", "error"]
    """How it ended."""
    failure: Failure | None = None
    """Set unless the status is ok."""
    memory_reached: int | None = None
    """Bytes that the process (CPU) or its tensors (CUDA) held when memory ran out, at the most;
    null unless the status is oom, or where it could not say."""
    attention: str | None = None
    """Attention implementation of the recipe's model; null if it could not be built."""
    layers_kept: LayersKept | None = None
    """Null if it could not be built."""
    parameters: Parameters | None = None
    """Null if it could not be built."""
    speed: Speed | None = None
    """Null if it did not fit."""
    memory: Memory | None = None
    """Null if it did not fit."""
    predicted_memory: MemoryEstimate | None = None
    """What ``harness plan`` says for the same batches; null if it cannot be predicted."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""


class PaperComparison(Record):
    """Numbers that the paper prints for a recipe, beside those of this profile."""

    recipe: str
    """In canonical form."""
    table: str | None
    """Number of the paper's table; null where the paper has no such cell."""
    paper_speed_pct: float | None = None
    """Percent of full fine-tuning."""
    own_speed_pct: float | None = None
    """Likewise; null if it was not measured."""
    paper_trained_params: int | None = None
    """Printed in millions, cut to one decimal."""
    own_trained_params: int | None = None
    """Null if it could not be built."""
    paper_mem_gb: float | None = None
    """GB of 1e9 bytes, in tensors on CUDA."""
    own_mem_gb: float | None = None
    """Peak in GB of 1e9 bytes; null if it was not measured."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""


class Profile(Record):
    """Recipes on one backbone and one device."""

    schema_version: int = 1
    """Version of this record's form."""
    backbone: str
    """Its name."""
    task: str
    """Whose lengths the batches have."""
    batches: BatchesOf
    """Where the batches come from."""
    why_no_data: str | None = None
    """Why the task's own data were not used; null if they were."""
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
    """In the order requested."""
    paper: list[PaperComparison] | None = None
    """Null unless ``--compare paper`` was requested."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""
