"""What a folder of runs says: one row a recipe, as every format of the report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.records.measurements import Fingerprint
from harness.records.record import Record
from harness.records.report import Status

SIGNIFICANT = 0.05
"""Adjusted p-values below this are marked."""


class Estimate(Record):
    """A number with the bounds of its 95 % interval, all in one unit."""

    value: float
    """The estimate."""
    low: float | None = None
    """Lower bound; null where there is no interval."""
    high: float | None = None
    """Upper bound."""
    seeds: int | None = None
    """How many training seeds the interval covers the spread of; one covers none, only the sampling
    of test examples (of a speed: of timed windows). Null without an interval."""

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, or ``None`` without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Quality(Record):
    """One metric of a recipe on the test split."""

    value: Estimate
    """Mean over seeds of the corpus value."""
    signature: str
    """Pins the implementation."""
    higher_is_better: bool
    """The direction."""
    difference: Estimate | None = None
    """Recipe less full fine-tuning, paired on seeds and test examples; null where the two cannot
    be compared (see ``RecipeRow.not_compared``)."""
    retention: Estimate | None = None
    """Recipe over full fine-tuning, or full fine-tuning over recipe where less is better: 1 means
    equal and less is worse. Null where ``RecipeRow.no_share`` says why."""
    floor: float | None = None
    """What the lead of the source scores, cut to the reference's number of words."""
    retention_above_floor: Estimate | None = None
    """The same share after the floor is taken from both; null where ``RecipeRow.no_floor`` says
    why."""
    p_value: float | None = None
    """Two-sided, of no difference, adjusted after Holm for the recipes of the group."""

    @property
    def significant(self) -> bool:
        """Whether the recipe differs from full fine-tuning."""
        return self.p_value is not None and self.p_value < SIGNIFICANT


class Reference(Record):
    """What another source, such as the paper, has on the same recipe."""

    source: str
    """Where it comes from."""
    speed: float | None = None
    """Relative to full fine-tuning."""
    trainable: int | None = None
    """Trained parameters."""
    memory_bytes: float | None = None
    """Peak memory."""
    quality: dict[str, float] = Field(default_factory=dict)
    """Metric -> value, where it may be compared."""
    unlike: list[str] = Field(default_factory=list)
    """Why numbers are left out, or what to bear in mind."""


class RecipeRow(Record):
    """A recipe: its mean over seeds."""

    recipe: str
    """In canonical form."""
    status: Status
    """``ok`` if any seed ended well, else how the last one ended."""
    seeds: list[int]
    """Seeds that ended well, which the numbers are the mean over."""
    failures: dict[int, str] = Field(default_factory=dict)
    """Seed that did not end well -> how, and in which phase."""
    runs: list[str]
    """Ids of the runs of ``seeds``, in the same order."""
    folders: list[str] = Field(default_factory=list)
    """Their folders, relative to that of all runs."""
    decoding: str | None = None
    """Signature of the decoder; null where the seeds' differ."""
    data_sha256: list[str] = Field(default_factory=list)
    """Hash of each seed's data."""
    processes: list[int] = Field(default_factory=list)
    """In how many processes the seeds were trained; several numbers if they differ."""
    speed: Estimate | None = None
    """Training speed relative to full fine-tuning on the same batches."""
    tokens_per_s: float | None = None
    """Training speed, absolute."""
    trainable: int | None = None
    """Trained parameters."""
    trainable_pct: float | None = None
    """Their share of the original backbone's, in percent."""
    memory_bytes: int | None = None
    """Peak memory; the largest over seeds."""
    memory_relative: float | None = None
    """Relative to full fine-tuning."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """``speed`` or ``memory_relative``, if null in a row whose status is ok -> why."""
    quality: dict[str, Quality] = Field(default_factory=dict)
    """Metric -> value and comparison."""
    not_compared: str | None = None
    """Why quality is not compared with full fine-tuning's, if it is not."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Metric -> why it has no comparison, or no interval over seeds."""
    no_share: dict[str, str] = Field(default_factory=dict)
    """Metric that was compared -> why no share of full fine-tuning's is known."""
    no_floor: dict[str, str] = Field(default_factory=dict)
    """Metric of which a share of full fine-tuning's is known -> why none above the floor is."""
    on_front: bool | None = None
    """Whether it is on the Pareto front of speed, memory and quality, where what lies within the
    intervals is tied; null where one of the three is unknown."""
    reference: Reference | None = None
    """What it was asked to be compared with."""


class Group(Record):
    """Recipes that share backbone, task and settings."""

    backbone: str
    """Name of the backbone."""
    task: str
    """Name of the task."""
    settings: str | None
    """Hash of the settings that the runs share; null in reports of before it was kept."""
    test_examples: list[int]
    """How many test examples were scored; several if the runs differ."""
    memory_unit: Literal["GiB", "GB"] = "GiB"
    """In which memory is shown: GB (1e9 bytes) beside the paper's numbers, which count so."""
    noise_floor: float | None = None
    """The most that full fine-tuning differed from itself in speed, as a ratio."""
    front_metric: str | None = None
    """The metric by which the Pareto front is drawn."""
    fingerprints: list[Fingerprint] = Field(default_factory=list)
    """What speed and memory depend on; several if the runs differ."""
    rows: list[RecipeRow]
    """Full fine-tuning first."""
    answer: list[str] = Field(default_factory=list)
    """The result in one or two plain sentences, above the table."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader must know, below the table."""

    @property
    def title(self) -> str:
        """What the group is on."""
        return f"{self.backbone} on {self.task}"

    def less_is_better(self, metric: str) -> bool:
        """Whether less of a metric is better."""
        had = (row.quality[metric] for row in self.rows if metric in row.quality)
        return any(not quality.higher_is_better for quality in had)

    def scored(self, metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics that any row has."""
        return [name for name in metrics if any(name in row.quality for row in self.rows)]

    def compared(self, metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics of which a share of full fine-tuning's is known."""
        return [
            name
            for name in metrics
            if any(name in row.quality and row.quality[name].retention for row in self.rows)
        ]

    def above_floor(self, metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics of which a share above the floor is known."""
        return [
            name
            for name in self.compared(metrics)
            if any(
                name in row.quality and row.quality[name].retention_above_floor for row in self.rows
            )
        ]


class Summary(Record):
    """A whole results folder."""

    schema_version: int = 1
    """Version of this record's form."""
    compared_with: str | None = None
    """What the rows' references are."""
    metrics: list[str]
    """Metrics that any row has, in the order in which they are shown."""
    groups: list[Group]
    """By task, then backbone."""

    def _repr_html_(self) -> str:
        from harness.reporting.documents import notebook_html

        return notebook_html(self)
