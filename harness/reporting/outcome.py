"""A recipe's comparison with the baseline: the request and its outcome.

The baseline is full fine-tuning, or another recipe of the group.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from harness.records.record import Record
from harness.records.run_folder import StoredRun
from harness.reporting.summary import Estimate
from harness.spec.run_spec import BASELINE

FORM = 3
"""Version of the statistics. A change of it invalidates every cached outcome."""


class Seed(NamedTuple):
    """A recipe's run and the baseline's run of the same seed, if there is one."""

    run: StoredRun
    baseline: StoredRun | None


@dataclass(frozen=True)
class Request:
    """A recipe to compare with the baseline.

    Attributes:
        seeds: the seeds that ended well; those without a baseline count in the mean only.
        metrics: names of the metrics to compare.
        baseline: the recipe that is the baseline.
    """

    seeds: tuple[Seed, ...]
    metrics: tuple[str, ...]
    baseline: str = BASELINE

    @functools.cached_property
    def key(self) -> str:
        """Cache key: a hash of the runs' ids and times, the metrics and the version."""
        runs = [
            [run.report.id, run.report.started]
            for seed in self.seeds
            for run in seed
            if run is not None
        ]
        text = json.dumps([FORM, runs, list(self.metrics)])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class Paired(Record):
    """The comparison of one metric of a recipe."""

    value: Estimate | None = None
    """Mean over seeds; null for one seed."""
    difference: Estimate | None = None
    """The recipe's value minus the baseline's."""
    retention: Estimate | None = None
    """The recipe's value divided by the baseline's; the inverse where less is better."""
    floor: float | None = None
    """Score of the lead baseline."""
    retention_above_floor: Estimate | None = None
    """The same share after the lead baseline's score is subtracted from both values."""
    p_value: float | None = None
    """p-value of no difference, not yet adjusted for several recipes."""


class Outcome(Record):
    """The comparison of a recipe."""

    metrics: dict[str, Paired] = Field(default_factory=dict)
    """Metric -> its comparison."""
    reason: str | None = None
    """Reason why nothing was compared with the baseline; null if it was."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Metric -> reason why it has no comparison, or no interval over seeds."""
    no_share: dict[str, str] = Field(default_factory=dict)
    """Metric that was compared -> reason why its ``retention`` is null."""
    no_floor: dict[str, str] = Field(default_factory=dict)
    """Metric with a ``retention`` -> reason why its ``retention_above_floor`` is null."""
