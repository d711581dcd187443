"""Records of what was measured: speed, memory, energy, and the fingerprint of the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.record import Record


class TimeParts(Record):
    """Seconds of a training step by part, in a window of their own that no speed is taken from."""

    data: float
    """Waiting for the batch, which another thread makes."""
    forward: float
    """Forward pass and loss."""
    backward: float
    """Backward pass."""
    optimizer: float
    """Clipping, optimizer, dropping the gradients."""


class MemoryParts(Record):
    """Bytes in tensors at the peak of a step on the longest batch, by what they are for."""

    weights: int
    """Weights and buffers, and copies of them that live on."""
    gradients: int
    """Of the trained weights."""
    optimizer: int
    """The optimizer's state."""
    activations: int
    """What the forward pass made and still holds, low-precision copies of weights included."""
    logits: int
    """Scores over the vocabulary, what is computed from them, and their gradients."""
    other: int
    """The batch, and what the backward pass holds for a moment."""

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(getattr(self, part) for part in MemoryParts.model_fields)


class Energy(Record):
    """Energy of the timed windows of speed, by counters of the device, less idle power.

    The counters are those of the whole device, whoever uses it: NVML's of the GPU with its memory,
    or RAPL's of all processor packages, without memory.
    """

    source: Literal["nvml", "rapl", "none"]
    """Whose counters; none where there are none that can be read."""
    joules: float | None = None
    """Over all windows, less what ``idle_watts`` would have used in that time."""
    joules_per_1000_tokens: float | None = None
    """The same for each 1000 of the tokens that speed counts."""
    idle_watts: float | None = None
    """Power before the windows, while the model waits in memory."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""


class Speed(Record):
    """Training speed, measured in a window of its own on a frozen schedule of batches."""

    tokens_per_s: float
    """Source tokens and target tokens that carry loss, without padding, per second."""
    samples_per_s: float
    """Examples per second."""
    relative: float | None = None
    """Geometric mean over matched windows of recipe / full; null without a baseline."""
    relative_ci: tuple[float, float] | None = None
    """95 % interval of ``relative`` (Student's t over the logarithms of the matched ratios)."""
    noise_floor: float | None = None
    """What full against full showed in the same windows, as a ratio of at least 1: a ``relative``
    that is no further from 1 than this is not significant."""
    baseline: str
    """Where the baseline's numbers come from, or why there are none."""
    engine: str
    """How batches went through the model: packed or padded."""
    schedule_sha256: str
    """Hash of the token ids and the order of the schedule; equal where speeds are comparable."""
    window_seconds: list[float]
    """Seconds of each timed window of the recipe, in the order measured."""
    warmup_extra_seconds: float | None = None
    """What the warm-up took beyond as many warm steps: allocation, choice of kernels, and compiling
    them where a recipe or the device does. It is in no other number; null in older reports."""
    flop_limit_relative: float | None = None
    """What ``relative`` would be if only matrix products took time; null if a compressor cannot be
    traced by shapes alone."""
    share_of_limit: float | None = None
    """relative / flop_limit_relative; null if one of them is."""
    parts: TimeParts | None = None
    """Where the time goes; null if it was not looked at."""
    energy: Energy | None = None
    """What the windows used; null in older reports."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""


class Memory(Record):
    """Peak memory over optimizer steps on the longest batch, in a process of its own."""

    peak_bytes: int
    """CUDA: most bytes allocated by tensors. CPU: most resident bytes of the process, whose C
    allocator returns what is freed at once; by its default rules it may keep some more."""
    static_bytes: int
    """Bytes held between steps, once the optimizer's state exists."""
    reserved_bytes: int | None = None
    """CUDA: most bytes that the allocator held; null on a CPU."""
    process_bytes: int | None = None
    """CUDA: bytes of the device that NVML books to the process when the window ends: what the
    allocator holds, CUDA's context and libraries."""
    allocation_retries: int | None = None
    """CUDA: how often in the window the allocator had to give back what it held and ask again; if
    it is not 0, memory was so short that it cost speed."""
    workspace_bytes: int | None = None
    """CUDA: of ``peak_bytes``, what cuBLAS keeps to work in, whatever the recipe; null on a CPU and
    in older reports."""
    tensor_bytes: int | None = None
    """CPU: most bytes in live tensors, which unlike resident bytes is deterministic."""
    relative: float | None = None
    """peak_bytes / those of full fine-tuning; null without a baseline."""
    parts: MemoryParts | None = None
    """What the tensors are for; null if it was not looked at."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""


class Fingerprint(Record):
    """Machine and software on which speed and memory depend, beside the run's own spec."""

    device: str
    """Name of the accelerator, or cpu."""
    driver: str | None
    """Of the accelerator; null on a CPU."""
    cpu: str
    """Model of the processor."""
    threads: int
    """Threads that torch computes with."""
    versions: dict[str, str]
    """Versions of python, torch, transformers, peft and the harness; on CUDA of CUDA and cuDNN."""
    dtype: str
    """What matrix products are computed in."""
    matmul_precision: str
    """torch's float32 matmul precision."""
    attention: str
    """Attention implementation."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of the environment that make libraries compute or allocate otherwise."""
    git: str | None
    """Commit of the harness's checkout, with +dirty and a hash of the changes if it was changed;
    null outside of one."""
