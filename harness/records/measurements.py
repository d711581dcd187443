"""Records of what was measured: speed, memory, energy, and the fingerprint of the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.record import Record


class TimeParts(Record):
    """Seconds of each part of a training step, timed in a window that speed does not use."""

    data: float
    """Waiting for the batch, which another thread collates."""
    forward: float
    """Forward pass and loss."""
    backward: float
    """Backward pass."""
    optimizer: float
    """Gradient clipping, optimizer step, and freeing the gradients."""


class MemoryParts(Record):
    """Bytes in tensors at the peak of a step on the longest batch, by purpose."""

    weights: int
    """Weights and buffers, and lasting copies of them."""
    gradients: int
    """Gradients of the trained weights."""
    optimizer: int
    """State of the optimizer."""
    activations: int
    """Tensors of the forward pass that are still held, low-precision copies of weights included."""
    logits: int
    """Logits, what is computed from them, and their gradients."""
    other: int
    """The batch, and temporary tensors of the backward pass."""
    teacher: int = 0
    """Weights of the original model, if a compressor trains with it as a teacher."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, part) for part in MemoryParts.model_fields)


class Energy(Record):
    """Energy of the windows that speed is timed in, by counters of the device, above idle power.

    The counters are those of the whole device, including all other programs that use it: NVML's of
    the GPU with its memory, or RAPL's of all processor packages, without memory.
    """

    source: Literal["nvml", "rapl", "none"]
    """Source of the counters; none if no counter can be read."""
    joules: float | None = None
    """Joules of all windows, minus those that ``idle_watts`` uses in the same time."""
    joules_per_1000_tokens: float | None = None
    """``joules`` per 1000 of the tokens that speed counts."""
    idle_watts: float | None = None
    """Power before the windows, while the model is in memory and idle."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""


class Speed(Record):
    """Training speed, measured in windows of its own on a fixed schedule of batches."""

    tokens_per_s: float
    """Source tokens and target tokens that carry loss, without padding, per second."""
    samples_per_s: float
    """Examples per second."""
    relative: float | None = None
    """Geometric mean over matched windows of recipe / full; null without a baseline."""
    relative_ci: tuple[float, float] | None = None
    """95 % interval of ``relative`` (Student's t over the logarithms of the matched ratios)."""
    noise_floor: float | None = None
    """Ratio, at least 1, of full fine-tuning against itself in the same windows. A ``relative``
    that is not further from 1 is not significant."""
    baseline: str
    """Source of the baseline's numbers, or the reason why there are none."""
    engine: str
    """Engine of the batches: packed or padded. On a GPU also whether steps were CUDA graphs; with
    the reason if it was not the fastest engine."""
    schedule_sha256: str
    """Hash of the schedule's token ids and their order; comparable speeds have equal hashes."""
    window_seconds: list[float]
    """Seconds of each timed window of the recipe, in the order of measurement."""
    warmup_extra_seconds: float | None = None
    """Seconds of the warm-up beyond those of as many warm steps: allocation, choice of kernels, and
    compilation where a recipe or the device needs it. No other number includes them. Null in older
    reports."""
    flop_limit_relative: float | None = None
    """FLOP limit: ``relative`` if only matrix products took time. Null if a compressor cannot be
    traced by shapes alone."""
    share_of_limit: float | None = None
    """relative / flop_limit_relative; null if one of them is."""
    parts: TimeParts | None = None
    """Time of each part of a step; null if it was not measured."""
    energy: Energy | None = None
    """Energy of the windows; null in older reports."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""


class Memory(Record):
    """Peak memory over optimizer steps on the longest batch, in a process of its own."""

    peak_bytes: int
    """CUDA: most bytes allocated by tensors. CPU: most resident bytes of the process. Its C
    allocator is set to return freed memory at once; by default it may keep some."""
    static_bytes: int
    """Bytes held between steps, once the optimizer's state exists."""
    reserved_bytes: int | None = None
    """CUDA: most bytes that the allocator reserved; null on a CPU."""
    process_bytes: int | None = None
    """CUDA: bytes of the device that NVML assigns to the process at the end of the window: the
    allocator's reserved memory, CUDA's context and libraries."""
    allocation_retries: int | None = None
    """CUDA: number of times in the window that the allocator had to free its cache and retry. If it
    is not 0, too little memory was free and training was slower."""
    workspace_bytes: int | None = None
    """CUDA: part of ``peak_bytes`` that is cuBLAS's workspace, which is the same for all recipes.
    Null on a CPU and in older reports."""
    tensor_bytes: int | None = None
    """CPU: most bytes in live tensors; deterministic, unlike resident bytes."""
    relative: float | None = None
    """peak_bytes / peak_bytes of full fine-tuning; null without a baseline."""
    parts: MemoryParts | None = None
    """Bytes of tensors by purpose; null if they were not counted."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""


class RankCosts(Record):
    """Costs of one of several processes that train together."""

    tokens_per_s: float
    """Tokens of its share of the steps, per second of the steps."""
    peak_bytes: int
    """Peak memory over the timed steps and one step on the longest batch. CUDA: most bytes
    allocated by tensors. CPU: most resident bytes of the process."""
    sent_bytes_per_step: float | None = None
    """Bytes that it sent to the others in an optimizer step."""


class ProcessCosts(Record):
    """Costs of several processes that train together, measured before the training."""

    processes: int
    """Number of processes."""
    tokens_per_s: float
    """Tokens of all processes per second, counted as in ``Speed``."""
    single_tokens_per_s: float
    """The same of the first process alone, which took the same steps in windows between those of
    all, while the others waited."""
    efficiency: float
    """Parallel efficiency: geometric mean over matched windows of the seconds of one process,
    divided by the number of processes and by the seconds of all."""
    efficiency_ci: tuple[float, float]
    """95 % interval of ``efficiency`` (Student's t over the logarithms of the matched ratios)."""
    ranks: list[RankCosts]
    """Costs of each process, the first one first."""
    sent_bytes_per_step: float | None = None
    """Bytes that all processes sent in an optimizer step, by the kernel's counters of their
    connections."""
    least_bytes_per_step: int
    """Least bytes that all processes together must send to sum the gradients of the trained
    weights: 2 x (processes - 1) x bytes of the gradients."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots."""


class Fingerprint(Record):
    """Machine and software on which speed and memory depend, beside the run's own spec."""

    device: str
    """Name of the accelerator, or cpu."""
    driver: str | None
    """Version of the accelerator's driver; null on a CPU."""
    cpu: str
    """Model of the processor."""
    threads: int
    """Number of threads that torch computes with."""
    versions: dict[str, str]
    """Versions of python, torch, transformers, peft and the harness; on CUDA of CUDA and cuDNN."""
    dtype: str
    """Type that matrix products are computed in."""
    matmul_precision: str
    """torch's float32 matmul precision."""
    attention: str
    """Attention implementation."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables that change how libraries compute or allocate."""
    git: str | None
    """Commit of the harness's checkout; +dirty and a hash are appended if it has changes. Null
    outside of a checkout."""
