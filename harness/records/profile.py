"""Record of ``harness profile``: speed and memory of recipes on a device, without training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.inference import Inference
from harness.records.measurements import Fingerprint, Memory, MemoryParts, Speed
from harness.records.record import Record
from harness.records.report import Failure, LayersKept, Parameters

BatchesOf = Literal["drawn from the task's length profile", "the task's own data"]
"""Source of the batches."""


class MemoryEstimate(Record):
    """Estimate of the peak memory on the longest batch, computed from shapes."""

    peak_bytes: int
    """Peak bytes. CUDA: those in tensors. CPU: those in tensors and of the process."""
    tensor_bytes: int
    """Bytes in tensors."""
    process_bytes: int | None
    """CPU: resident bytes beside tensors (interpreter, libraries, buffers), measured in the
    estimating process after a step of a small model. Null on CUDA."""
    parts: MemoryParts
    """Bytes of tensors by purpose."""
    engine: str
    """Engine of the batches: packed or padded."""
    dtype: str
    """Type that matrix products are computed in."""
    batch_size: int
    """Examples in a micro-batch."""
    source_tokens: int
    """Source tokens of the longest optimizer step."""
    target_tokens: int
    """Target tokens of the longest optimizer step."""


class HeldBytes(Record):
    """Bytes that a process holds when a step's gradients are summed, before the update.

    Weights and the optimizer's state are also held between two steps.
    """

    weights: int
    """Weights, or the shards of them."""
    gradients: int
    """Gradients of these weights."""
    optimizer: int
    """State of the optimizer."""


class ParallelEstimate(Record):
    """Estimate of the peak memory and the exchanges of each of several processes."""

    processes: int
    """Number of processes, each with its own device."""
    parallel: Literal["ddp", "fsdp"]
    """Way in which they share the model: ddp holds it in each, fsdp divides it among them."""
    why: str
    """Reason for that."""
    tensor_bytes: int
    """Peak bytes in the tensors of a process."""
    parts: MemoryParts
    """These bytes by purpose; with fsdp, ``weights`` are the shards and what is gathered."""
    held: HeldBytes
    """Bytes that each process holds without activations and without what is gathered."""
    gathered_bytes: int
    """Bytes of weights that are gathered at once, which are a part of ``weights``; 0 with ddp."""
    sent_bytes: int
    """Bytes that each process sends in an optimizer step, if exchanges go around a ring."""
    device_bytes: int
    """Memory of the devices that are planned for."""
    devices_needed: int | None
    """Smallest number of such devices that can train; null if no number up to 1,024 can."""


class ProfiledRecipe(Record):
    """Profile of one recipe."""

    recipe: str
    """Recipe in canonical form."""
    status: Literal["ok", "oom", "error"]
    """Status at the end of the measurement."""
    failure: Failure | None = None
    """Set unless the status is ok."""
    memory_reached: int | None = None
    """Most bytes that the process (CPU) or its tensors (CUDA) held before memory ran out; null
    unless the status is oom, or if the process could not report it."""
    attention: str | None = None
    """Attention implementation of the model; null if the model could not be built."""
    layers_kept: LayersKept | None = None
    """Null if the model could not be built."""
    parameters: Parameters | None = None
    """Null if the model could not be built."""
    speed: Speed | None = None
    """Null if training did not fit into memory."""
    memory: Memory | None = None
    """Null if training did not fit into memory."""
    inference: Inference | None = None
    """Costs of decoding; null unless ``--inference`` was requested, or if decoding did not fit into
    memory."""
    predicted_memory: MemoryEstimate | None = None
    """Estimate of ``harness plan`` for the same batches; null if memory cannot be estimated."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""


class PaperComparison(Record):
    """Numbers that the paper prints for a recipe, beside those of this profile."""

    recipe: str
    """Recipe in canonical form."""
    table: str | None
    """Number of the paper's table; null if the paper has no such cell."""
    paper_speed_pct: float | None = None
    """The paper's speed in percent of full fine-tuning."""
    own_speed_pct: float | None = None
    """Measured speed in percent of full fine-tuning; null if it was not measured."""
    paper_trained_params: int | None = None
    """The paper's trained parameters, which it prints in millions with one decimal, truncated."""
    own_trained_params: int | None = None
    """Null if the model could not be built."""
    paper_mem_gb: float | None = None
    """The paper's memory in GB of 1e9 bytes: tensors on CUDA."""
    own_mem_gb: float | None = None
    """Measured peak memory in GB of 1e9 bytes; null if it was not measured."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""


class Profile(Record):
    """Profile of recipes on one backbone and one device."""

    schema_version: int = 1
    """Version of this record's schema."""
    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task, whose data or lengths the batches have."""
    batches: BatchesOf
    """Source of the batches."""
    data_notes: list[str] = Field(default_factory=list)
    """Sentences on what was guessed, left out and truncated in the task's own data."""
    why_no_data: str | None = None
    """Reason why the task's own data were not used; null if they were used."""
    batch_size: int
    """Examples in a micro-batch."""
    accumulation: int
    """Micro-batches in an optimizer step."""
    mean_source_tokens: float
    """Mean source length in the timed batches."""
    mean_target_tokens: float
    """Mean target length in the timed batches."""
    fingerprint: Fingerprint
    """Machine and software that the numbers depend on."""
    recipes: list[ProfiledRecipe] = Field(default_factory=list)
    """Profiles of the recipes, in the requested order."""
    paper: list[PaperComparison] | None = None
    """Null unless ``--compare paper`` was requested."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""
