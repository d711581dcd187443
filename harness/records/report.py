"""The report of a run: one typed record, whatever became of the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.measurements import Fingerprint, Memory, Speed
from harness.records.record import Record

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "nan", "timeout", "interrupted", "error"]


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
    """Result of the training phase."""

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
    """Data that the task supplied."""

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
    """Check that the model which the run saves behaves like the one that it trained."""

    largest_logit_difference: float
    """Between the trained model and the same with its adapters folded into plain layers, on one
    batch in float32."""
    float32_logit_difference: float | None = None
    """Between the model as it was evaluated and the backbone in float32 with the saved weights, on
    one batch. Null where it was evaluated in float32, and in older reports."""


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
