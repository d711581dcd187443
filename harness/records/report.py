"""The report of a run: one typed record, whatever became of the run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "nan", "timeout", "interrupted", "error"]

PHASES = ("load", "probe speed", "probe memory", "train", "evaluate", "hand-over")
"""What a run does, in this order; no two phases share a measurement window."""


class Record(BaseModel):
    """Base of all that is reported: documented fields, and no unknown ones."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class LayersKept(Record):
    """Transformer layers that are left, 1-indexed by where they were in the backbone."""

    encoder: list[int]
    """Of the encoder."""
    decoder: list[int]
    """Of the decoder."""


class Parameters(Record):
    """Numbers of parameters, tied weights counted once."""

    original: int
    """Of the backbone as published."""
    total: int
    """Of the compressed model, adapters included."""
    trainable: int
    """Trained ones: they require a gradient, are in the optimizer, and got a gradient."""
    trainable_pct_of_original: float
    """100 x trainable / original."""
    trainable_pct_of_total: float
    """100 x trainable / total."""


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


class Value(Record):
    """One metric of the test split."""

    value: float
    """Corpus value."""
    ci: tuple[float, float] | None
    """95 % interval over test examples (seeded bootstrap); null for fewer than two examples."""
    signature: str
    """Pins the implementation; values of unlike signatures are never compared."""
    higher_is_better: bool
    """The direction."""
    metric: str | None = None
    """The metric and its options, as ``--metrics`` takes them; null where none were chosen."""


class Training(Record):
    """What the training phase did."""

    steps: int
    """Optimizer steps taken."""
    planned_steps: int
    """Optimizer steps planned."""
    best_step: int
    """Steps after which the weights that were kept were reached."""
    best_metric: str | None = None
    """Chose these weights. None in reports from before it was noted: the task's primary metric."""
    best_value: float | None
    """Of that metric on the eval split at that step; None where it never was a number."""
    learning_rate: float
    """Highest learning rate of a step."""
    notes: list[str] = Field(default_factory=list)
    """What a reader should know of the training, in sentences."""
    stopped: Literal["finished", "patience"]
    """Why it ended."""
    seconds: float
    """Wall time of the whole phase, evaluation included; never a measure of speed. Of a run that
    was resumed, only the time whose work was kept."""
    processes: int = 1
    """That shared each step's examples, each on a device of its own. Speed and memory are always
    those of one process on one device, measured before."""


class Data(Record):
    """What the task supplied."""

    train: int
    """Examples."""
    eval: int
    """Examples."""
    test: int
    """Examples that were scored."""
    skipped: dict[str, int]
    """Why rows were left out -> how many."""
    leakage: dict[str, int] = Field(default_factory=dict)
    """Likeness of sources -> pairs in different splits that are so alike, over all rows: exact, and
    near; empty where the task does not count them."""
    cut_sources: int
    """Sources longer than the task's limit, over all splits; they lost their end."""
    cut_targets: int
    """Targets longer than the limit; training saw them cut, scores never do."""
    sha256: str
    """Hash of the texts of all splits."""
    rows: int | None = None
    """Usable rows of all splits, scored or not; null in older reports."""
    notes: list[str] = Field(default_factory=list)
    """What was guessed while reading, and the option that decides it."""


class MergeCheck(Record):
    """Whether what the run hands over behaves like what it trained."""

    largest_logit_difference: float
    """Between the trained model and the same with its adapters folded into plain layers, on one
    batch in float32."""
    float32_logit_difference: float | None = None
    """Between the model as it was evaluated and the backbone in float32 with the saved weights, on
    one batch. Null where it was evaluated in float32, and in older reports."""


class Fingerprint(Record):
    """What the numbers of speed and memory depend on beside the run's own spec."""

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


class Failure(Record):
    """Why a run did not end well."""

    phase: str
    """One of the phases."""
    message: str
    """What went wrong, in a line or two; holds no text of the data."""
    memory_bytes: int | None = None
    """If memory ran out: what the process held at most until then."""


class Resumption(Record):
    """A new start of a run that had been stopped."""

    phase: str
    """The phase that it went on with; what the phases before it had found was kept."""
    step: int | None = None
    """Optimizer steps that were already done, if that phase is training."""


class Report(Record):
    """Everything a run found."""

    schema_version: int = SCHEMA_VERSION
    """Version of this record's form."""
    id: str
    """Derived from all that could change the result."""
    status: Status
    """How it ended."""
    failure: Failure | None = None
    """Set unless the status is ok."""
    backbone: str
    """Name of the backbone."""
    recipe: str
    """The recipe in canonical form."""
    task: str
    """Name of the task."""
    seed: int
    """Its seed."""
    settings: str | None = None
    """Hash of the settings that runs must share to be averaged or compared: those of training and
    decoding, not backbone, recipe, task, seed, device or probe."""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    """Wall time of the whole run; if it was resumed, only the time whose work was kept."""
    resumed: list[Resumption] = Field(default_factory=list)
    """Every time the run was taken up again; empty for one that went through in one go."""
    micro_batch: int | None = None
    """Examples that went through the model at a time, if fewer than the settings say because they
    did not fit; more accumulation kept the optimizer step the same."""
    data: Data | None = None
    """Null until the data were read."""
    checkpoint_notes: list[str] = Field(default_factory=list)
    """What is unusual about the backbone's checkpoint: weights that were missing and are random,
    some without use, converted files, a grown embedding, an adapter merged. Empty in older
    reports."""
    layers_kept: LayersKept | None = None
    """Null until the model was composed."""
    parameters: Parameters | None = None
    """Null until the model was composed."""
    speed: Speed | None = None
    """Null until measured."""
    memory: Memory | None = None
    """Null until measured."""
    training: Training | None = None
    """Null until trained."""
    quality: dict[str, Value] = Field(default_factory=dict)
    """Metric -> its value on the test split."""
    not_computed: dict[str, str] = Field(default_factory=dict)
    """Metric of the suite that could not be computed -> why, and what would mend it."""
    decoding: str | None = None
    """Signature of the decoder; values of unlike decoders are never compared."""
    handover: MergeCheck | None = None
    """Null until checked."""
    fingerprint: Fingerprint | None = None
    """What the measurements depend on."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Number that is null -> why; a dot leads into a record within. Empty in older reports."""

    def _repr_html_(self) -> str:
        from harness.records.display import report_html

        return report_html(self)
