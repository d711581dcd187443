"""A recipe's comparison with full fine-tuning: what is requested, and what the bootstrap says."""

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

FORM = 3
"""Raised whenever the statistics change, so that no older number is taken for a new one."""


class Seed(NamedTuple):
    """A recipe's run and full fine-tuning's run of the same seed, if there is one."""

    run: StoredRun
    baseline: StoredRun | None


@dataclass(frozen=True)
class Request:
    """A recipe that is to be compared.

    Attributes:
        seeds: all that ended well; those without a baseline count in the mean alone.
        metrics: names.
    """

    seeds: tuple[Seed, ...]
    metrics: tuple[str, ...]

    @functools.cached_property
    def key(self) -> str:
        """What the outcome is kept under: the runs that it rests on, and when these were made."""
        runs = [
            [run.report.id, run.report.started]
            for seed in self.seeds
            for run in seed
            if run is not None
        ]
        text = json.dumps([FORM, runs, list(self.metrics)])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class Paired(Record):
    """What the bootstrap says of one metric of a recipe."""

    value: Estimate | None = None
    """Mean over seeds."""
    difference: Estimate | None = None
    """Less full fine-tuning's."""
    retention: Estimate | None = None
    """Over full fine-tuning's; of a metric of which less is better, full fine-tuning's over it."""
    floor: float | None = None
    """What the lead of the source scores."""
    retention_above_floor: Estimate | None = None
    """Over full fine-tuning's, after the floor is taken from both."""
    p_value: float | None = None
    """Of no difference, not yet adjusted."""


class Outcome(Record):
    """What the bootstrap says of a recipe."""

    metrics: dict[str, Paired] = Field(default_factory=dict)
    """Metric -> what was found."""
    reason: str | None = None
    """Why nothing was compared with full fine-tuning, if so."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Metric -> why it has no comparison, or no interval over seeds."""
    no_share: dict[str, str] = Field(default_factory=dict)
    """Metric that was compared -> why there is no share of full fine-tuning's."""
    no_floor: dict[str, str] = Field(default_factory=dict)
    """Metric with a retention -> why it has none above the floor."""
