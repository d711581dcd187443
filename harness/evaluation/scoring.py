"""Scoring predictions with a task's metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.metric import Metric, Score
from harness.reporting.report import Value
from harness.statistics import bootstrap_interval


@dataclass(frozen=True)
class Scores:
    """What the metrics of a suite say.

    Attributes:
        computed: metric -> score.
        not_computed: metric -> why, and what would mend it.
    """

    computed: dict[str, Score] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Value]:
        """Return corpus values with their intervals, as the report holds them."""
        return {name: _value(score) for name, score in self.computed.items()}

    def of_example(self, index: int) -> dict[str, float]:
        """Return every metric's value of one example."""
        return {name: round(score.examples[index], 4) for name, score in self.computed.items()}


def score(
    metrics: Sequence[Metric],
    sources: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[str],
) -> Scores:
    """Score with every metric that can be computed here."""
    scores = Scores()
    for metric in metrics:
        reason = metric.unavailable()
        if reason is None:
            scores.computed.update(metric.score(sources, predictions, references))
        else:
            scores.not_computed.update(dict.fromkeys(metric.names, reason))
    return scores


def metric_of(metrics: Sequence[Metric], name: str) -> Metric:
    """Return the metric of a suite that computes a named score.

    Raises:
        ValueError: none does.
    """
    for metric in metrics:
        if name in metric.names:
            return metric
    raise ValueError(f"No metric of the suite computes {name!r}.")


def data_hash(*splits: Any) -> str:
    """Return a hash of the sources and targets of datasets, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for column in ("source", "target"):
            for text in split[column]:
                digest.update(text.encode() + b"\0")
        digest.update(b"\1")
    return digest.hexdigest()


def _value(score: Score) -> Value:
    several = len(score.examples) > 1
    interval = bootstrap_interval(score, seed=0) if several else None
    return Value(
        value=score.value,
        ci=(interval.low, interval.high) if interval else None,
        signature=score.signature,
        higher_is_better=score.higher_is_better,
    )
