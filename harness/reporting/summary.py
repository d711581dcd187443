"""Records of a summary: groups of runs, one row for each recipe, as every format shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.records.measurements import Fingerprint, ProcessCosts
from harness.records.record import Record
from harness.records.report import Status

Front = Literal["training", "inference"]
"""Costs that a Pareto front weighs against quality."""

SIGNIFICANT = 0.05
"""Level below which an adjusted p-value is significant."""


class Estimate(Record):
    """A number with the bounds of its 95 % interval, all in one unit."""

    value: float
    """The estimate."""
    low: float | None = None
    """Lower bound; null without an interval."""
    high: float | None = None
    """Upper bound; null without an interval."""
    seeds: int | None = None
    """Number of training seeds behind the interval. With one, the interval covers no spread between
    seeds, only the sampling of test examples (of a speed: of timed windows). Null without an
    interval."""

    @property
    def negated(self) -> Estimate:
        """The estimate of the negated number."""
        return Estimate(
            value=-self.value,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
            seeds=self.seeds,
        )

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, or ``None`` without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Quality(Record):
    """One metric of a recipe on the test split."""

    value: Estimate
    """Mean over seeds of the value on the whole test split."""
    signature: str
    """Signature of the metric: its implementation, version and options."""
    higher_is_better: bool
    """True if a higher value is better."""
    difference: Estimate | None = None
    """The recipe's value minus full fine-tuning's, paired on seeds and test examples; null where
    the two cannot be compared (see ``RecipeRow.not_compared``)."""
    retention: Estimate | None = None
    """The recipe's value divided by full fine-tuning's; the inverse where less is better. 1 means
    equal, less than 1 is worse. Null for the reason in ``RecipeRow.no_share``."""
    floor: float | None = None
    """Score of the lead baseline: the first words of the source, as many as the reference has."""
    retention_above_floor: Estimate | None = None
    """The same share after the lead baseline's score is subtracted from both values; null for the
    reason in ``RecipeRow.no_floor``."""
    p_value: float | None = None
    """Two-sided p-value of no difference, adjusted for the recipes of the group (Holm)."""

    @property
    def significant(self) -> bool:
        """Return whether the recipe differs significantly from full fine-tuning."""
        return self.p_value is not None and self.p_value < SIGNIFICANT


class Reference(Record):
    """Numbers of another source, such as the paper, on the same recipe."""

    source: str
    """Name of the source, such as a table of the paper."""
    speed: float | None = None
    """Training speed relative to full fine-tuning."""
    trainable: int | None = None
    """Number of trained parameters."""
    memory_bytes: float | None = None
    """Peak memory."""
    quality: dict[str, float] = Field(default_factory=dict)
    """Metric -> value, for the metrics that can be compared."""
    unlike: list[str] = Field(default_factory=list)
    """Reasons why numbers are left out."""


class InferenceRow(Record):
    """Costs of decoding with a recipe's merged model, as means over its seeds."""

    latency_seconds: float
    """Median time of one example at batch 1."""
    p95_seconds: float | None = None
    """95th percentile of that time; null if too few examples were timed."""
    prefill_seconds: float
    """Time to the first token at batch 1."""
    per_token_seconds: float | None = None
    """Time of each later token at batch 1; null if it was not measured."""
    latency: Estimate | None = None
    """Speed at batch 1 relative to full fine-tuning's: its latency over the recipe's."""
    batch_size: int | None = None
    """Examples of the batch; null if no batch was timed."""
    output_tokens_per_s: float | None = None
    """Output tokens per second at that batch."""
    throughput: Estimate | None = None
    """Speed at that batch relative to full fine-tuning's."""
    memory_bytes: int
    """Peak memory while decoding, the largest of all seeds."""
    memory_relative: float | None = None
    """Peak memory relative to full fine-tuning's."""
    model_bytes: int
    """Weights of the merged model on disk."""
    trained_bytes: int
    """Trained weights on disk, which each task adds to a shared base."""
    beams: int
    """Number of beams."""
    output_tokens: int
    """Tokens that each example generates."""
    noise_floor: float | None = None
    """Largest ratio of full fine-tuning's latency to itself."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason."""


class RecipeRow(Record):
    """A recipe with the means over its seeds."""

    recipe: str
    """The recipe in canonical form."""
    status: Status
    """``ok`` if any seed ended well, else the status of the last run."""
    seeds: list[int]
    """Seeds that ended well; the numbers are means over them."""
    failures: dict[int, str] = Field(default_factory=dict)
    """Seed that did not end well -> status and phase."""
    runs: list[str]
    """Ids of the runs, in the order of ``seeds``."""
    folders: list[str] = Field(default_factory=list)
    """Folders of the runs, relative to the results folder."""
    decoding: str | None = None
    """Signature of the decoder; null if it differs between seeds."""
    data_sha256: list[str] = Field(default_factory=list)
    """Hash of each seed's data."""
    processes: list[int] = Field(default_factory=list)
    """Number of training processes; several numbers if it differs between seeds."""
    speed: Estimate | None = None
    """Training speed relative to full fine-tuning on the same batches."""
    tokens_per_s: float | None = None
    """Training speed in tokens per second."""
    trainable: int | None = None
    """Number of trained parameters."""
    trainable_pct: float | None = None
    """Trained parameters in percent of the original backbone's parameters."""
    memory_bytes: int | None = None
    """Peak memory, the largest of all seeds."""
    memory_relative: float | None = None
    """Peak memory relative to full fine-tuning."""
    inference: InferenceRow | None = None
    """Costs of decoding; null if no seed measured them."""
    process_costs: ProcessCosts | None = None
    """Costs of several processes, of the first seed that measured them; null without any."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """``speed``, ``memory_relative`` or ``inference``, if null in a row of status ok -> the reason.
    Older reports do not say why they lack ``inference``."""
    quality: dict[str, Quality] = Field(default_factory=dict)
    """Metric -> value and comparison."""
    not_compared: str | None = None
    """Reason why quality is not compared with full fine-tuning's, or not for all seeds."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Metric -> reason why it has no comparison, or no interval over seeds."""
    no_share: dict[str, str] = Field(default_factory=dict)
    """Metric that was compared -> reason why its ``retention`` is null."""
    no_floor: dict[str, str] = Field(default_factory=dict)
    """Metric with a ``retention`` -> reason why its ``retention_above_floor`` is null."""
    on_front: bool | None = None
    """True if the recipe is on the Pareto front of the group's ``front``, where values within the
    intervals are ties; null if one of the three objectives is unknown."""
    reference: Reference | None = None
    """Numbers of the source that the summary is compared with."""


class Group(Record):
    """Recipes that share backbone, task and settings."""

    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task."""
    settings: str | None
    """Hash of the settings that the runs share; null in old reports, which lack it."""
    test_examples: list[int]
    """Number of test examples; several numbers if it differs between runs."""
    memory_unit: Literal["GiB", "GB"] = "GiB"
    """Unit in which memory is shown: GB (1e9 bytes), the paper's unit, beside its numbers."""
    noise_floor: float | None = None
    """Noise floor of speed: the largest ratio of full fine-tuning's speed to itself."""
    front: Front = "training"
    """Objectives of the Pareto front beside quality: speed and memory of training, or speed at
    batch 1 and memory of decoding."""
    front_metric: str | None = None
    """Metric whose values are the quality of the Pareto front."""
    fingerprints: list[Fingerprint] = Field(default_factory=list)
    """Device and software of the runs; several if they differ."""
    baseline: str = "full"
    """Recipe that quality is compared with; where these fields speak of full fine-tuning's quality,
    its quality is meant. Speed and memory are relative to full fine-tuning's in any case."""
    rows: list[RecipeRow]
    """One row for each recipe, the baseline first."""
    answer: list[str] = Field(default_factory=list)
    """The result in one or two plain sentences, above the table."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader must know, below the table."""

    @property
    def title(self) -> str:
        """Name of the group: backbone and task."""
        return f"{self.backbone} on {self.task}"

    @property
    def has_inference(self) -> bool:
        """Return whether any row has costs of decoding."""
        return any(row.inference for row in self.rows)

    def less_is_better(self, metric: str) -> bool:
        """Return whether less of a metric is better."""
        values = (row.quality[metric] for row in self.rows if metric in row.quality)
        return any(not quality.higher_is_better for quality in values)

    def scored(self, metrics: Sequence[str]) -> list[str]:
        """Return the metrics that any row has."""
        return [name for name in metrics if any(name in row.quality for row in self.rows)]

    def compared(self, metrics: Sequence[str]) -> list[str]:
        """Return the metrics of which any row has a share of full fine-tuning's value."""
        return [
            name
            for name in metrics
            if any(name in row.quality and row.quality[name].retention for row in self.rows)
        ]

    def above_lead_baseline(self, metrics: Sequence[str]) -> list[str]:
        """Return the metrics of which any row has a share above the lead baseline."""
        return [
            name
            for name in self.compared(metrics)
            if any(
                name in row.quality and row.quality[name].retention_above_floor for row in self.rows
            )
        ]


class Summary(Record):
    """The summary of a results folder."""

    schema_version: int = 1
    """Version of the fields of this record."""
    compared_with: str | None = None
    """Source of the rows' references: ``paper`` or a folder; null without a comparison."""
    metrics: list[str]
    """Names of the metrics, in the order in which they are shown."""
    groups: list[Group]
    """The groups, sorted by task, then backbone, then settings."""

    def _repr_html_(self) -> str:
        from harness.reporting.documents import notebook_html

        return notebook_html(self)
