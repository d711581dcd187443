"""Report of a run: one typed record, also for a run that failed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.records.inference import Inference
from harness.records.measurements import Fingerprint, Memory, ProcessCosts, Speed
from harness.records.record import Record

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "nan", "timeout", "interrupted", "error"]


class LayersKept(Record):
    """Transformer layers that are kept, numbered from 1 by their position in the backbone."""

    encoder: list[int]
    """Layers of the encoder."""
    decoder: list[int]
    """Layers of the decoder."""


class Parameters(Record):
    """Numbers of parameters, tied weights counted once."""

    original: int
    """Parameters of the backbone as published."""
    total: int
    """Parameters of the compressed model, adapters included."""
    trainable: int
    """Trained parameters: they require a gradient, are in the optimizer, and got a gradient."""
    trainable_pct_of_original: float
    """100 x trainable / original."""
    trainable_pct_of_total: float
    """100 x trainable / total."""


class Value(Record):
    """One metric of the test split."""

    value: float
    """Value on the whole test split."""
    ci: tuple[float, float] | None
    """95 % interval over test examples (seeded bootstrap); null for fewer than two examples."""
    signature: str
    """Identifies the implementation; values with different signatures are never compared."""
    higher_is_better: bool
    """True if a higher value is better, false if a lower one is."""
    metric: str | None = None
    """The metric and its options, as ``--metrics`` takes them; null if no options were chosen."""


class StructureChange(Record):
    """A change of the model's structure during training."""

    step: int
    """Optimizer steps after which it was made."""
    compressor: str
    """Name of the compressor that made it."""
    change: dict[str, Any]
    """All that the compressor needs to make it again."""


class Training(Record):
    """Result of the training phase."""

    steps: int
    """Optimizer steps taken."""
    planned_steps: int
    """Optimizer steps planned."""
    best_step: int
    """Step of the best weights, which are those that the run saves."""
    best_metric: str | None = None
    """Metric that chose the best weights; null in older reports: the task's primary metric."""
    best_value: float | None
    """Value of that metric on the eval split at that step; null if it never was a number."""
    learning_rate: float
    """Highest learning rate of all steps."""
    learning_rates: dict[str, float] = Field(default_factory=dict)
    """Group of parameters that a compressor named (COMPRESSOR.GROUP) -> its highest learning rate;
    ``learning_rate`` is that of the others. Empty if there is no group."""
    changes: list[StructureChange] = Field(default_factory=list)
    """Changes of the structure, in order. The best weights are those of the last structure."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader of the training should know."""
    stopped: Literal["finished", "patience"]
    """Reason why the training ended."""
    seconds: float
    """Wall time of the whole phase, evaluation included; not a measure of speed. For a resumed run
    it counts only the time of work that was kept."""
    processes: int = 1
    """Number of processes that shared the examples of each step, each on its own device; if it
    changed, the last one. Speed and memory are always measured before, with one process on one
    device."""
    process_counts: dict[int, int] = Field(default_factory=dict)
    """Optimizer steps done -> number of processes that took the further ones. Several entries if
    the run was resumed with another number; the order of the examples is the same, and each process
    draws its own dropout. Empty in older reports."""
    parallel: Literal["ddp", "fsdp"] | None = None
    """Way in which the processes shared the model: ddp held it in each, fsdp divided its weights
    among them; null for one process, and in older reports."""


class Data(Record):
    """Data that the task supplied."""

    train: int
    """Examples of the train split."""
    eval: int
    """Examples of the eval split."""
    test: int
    """Examples of the test split that were scored."""
    skipped: dict[str, int]
    """Reason why rows were left out -> number of rows."""
    leakage: dict[str, int] = Field(default_factory=dict)
    """Kind of duplicate (exact, near) -> number of pairs of sources in different splits, over all
    rows; empty if the task does not count them."""
    cut_sources: int
    """Sources of all splits that were longer than the task's limit and were truncated."""
    cut_targets: int
    """Targets longer than the limit; they are truncated for training and never for scores."""
    sha256: str
    """Hash of the texts of all splits."""
    prefix: str | None = None
    """Text that the task puts before every source; null in older reports."""
    max_source_length: int | None = None
    """Longest source in tokens; longer ones are truncated. Null in older reports."""
    max_target_length: int | None = None
    """Longest target in tokens; longer ones are truncated in training. Null in older reports."""
    rows: int | None = None
    """Usable rows of all splits, whether scored or not; null in older reports."""
    notes: list[str] = Field(default_factory=list)
    """Sentences about what was guessed while reading, with the option that decides it."""


class MergeCheck(Record):
    """Check that the model which the run saves behaves like the one that it trained."""

    largest_logit_difference: float
    """Largest difference between logits of the trained model and of the same model with its
    adapters merged into plain layers, on one batch in float32."""
    float32_logit_difference: float | None = None
    """Largest difference between logits of the model as it was evaluated and of the backbone in
    float32 with the saved weights, on one batch; null if it was evaluated in float32, and in older
    reports."""


class Failure(Record):
    """Failure of a run."""

    phase: str
    """Phase in which the run failed."""
    message: str
    """Description of the failure in a line or two; contains no text of the data."""
    memory_bytes: int | None = None
    """Most bytes that the process held, if memory ran out; null otherwise."""


class Resumption(Record):
    """Resumption of a run that had been stopped."""

    phase: str
    """Phase at which the run resumed; the results of earlier phases were kept."""
    step: int | None = None
    """Optimizer steps that were already done, if the phase is training."""
    processes: int | None = None
    """Number of processes from there on; null in older reports."""


class Report(Record):
    """Everything that a run found."""

    schema_version: int = SCHEMA_VERSION
    """Version of this record's schema."""
    id: str
    """Identity of the run, derived from everything that can change its result."""
    status: Status
    """Status at the end of the run."""
    failure: Failure | None = None
    """Set unless the status is ok."""
    backbone: str
    """Name of the backbone."""
    backbone_version: str | None = None
    """Identifies the files of the backbone: a hash, or a hub id with its commit. Null in older
    reports."""
    recipe: str
    """Recipe in canonical form."""
    task: str
    """Name of the task."""
    seed: int
    """Seed of the run."""
    plugin_files: dict[str, str] = Field(default_factory=dict)
    """Name of a plugin that was given as a single file -> SHA-256 of its text. The run's folder has
    a copy in ``plugins/``. Empty if all plugins were packages, and in older reports."""
    settings: str | None = None
    """Hash of the settings of training and decoding, which runs must share to be averaged or
    compared. Backbone, recipe, task, seed, device and probe are not part of it."""
    started: str
    """Start of the run: ISO 8601, UTC."""
    seconds: float
    """Wall time of the whole run; for a resumed run, only the time of work that was kept."""
    teacher_seconds: float = 0
    """Wall time of the teacher beside this run: its own run, if a run taught this one, and what was
    computed once and stored. What it computes in training steps is part of ``seconds``."""
    encoder_seconds: float = 0
    """Wall time of computing the outputs of a frozen encoder once, by this run or by an earlier one
    that stored them; it is not part of ``seconds``."""
    resumed: list[Resumption] = Field(default_factory=list)
    """Every resumption of the run; empty if it was never stopped."""
    micro_batch: int | None = None
    """Examples per forward pass, if fewer than the settings say because those did not fit. More
    gradient accumulation kept the optimizer step the same."""
    data: Data | None = None
    """Null until the data were read."""
    checkpoint_notes: list[str] = Field(default_factory=list)
    """Sentences about what is unusual in the backbone's checkpoint: missing weights, which are
    random; unused weights; converted files; an extended embedding; a merged adapter. Empty in older
    reports."""
    layers_kept: LayersKept | None = None
    """Null until the model was composed."""
    parameters: Parameters | None = None
    """Null until the model was composed."""
    speed: Speed | None = None
    """Null until measured."""
    memory: Memory | None = None
    """Null until measured."""
    inference: Inference | None = None
    """Costs of decoding; null until measured, in older reports, and if it was switched off."""
    process_costs: ProcessCosts | None = None
    """Costs of several processes; null until measured, with one process, and in older reports."""
    training: Training | None = None
    """Null until trained."""
    quality: dict[str, Value] = Field(default_factory=dict)
    """Metric -> value on the test split."""
    not_computed: dict[str, str] = Field(default_factory=dict)
    """Metric of the suite that could not be computed -> the reason and the remedy."""
    decoding: str | None = None
    """Signature of the decoder; values of different decoders are never compared."""
    handover: MergeCheck | None = None
    """Null until checked."""
    fingerprint: Fingerprint | None = None
    """Machine and software that the measurements depend on."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots. Empty in older reports."""

    def _repr_html_(self) -> str:
        from harness.records.display import report_html

        return report_html(self)
