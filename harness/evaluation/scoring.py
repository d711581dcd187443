"""Scoring predictions with metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import HarnessError
from harness.evaluation.predictions import Row
from harness.metric import Metric, Score
from harness.registry import Registry
from harness.reporting.report import Value
from harness.statistics import bootstrap_interval


@dataclass(frozen=True)
class Scores:
    """What metrics say of predictions.

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


def score(metrics: Iterable[Metric], rows: Sequence[Row]) -> Scores:
    """Score with every metric that can be computed here.

    One that turns out broken (weights that cannot be read, say) must not take the others with it.
    """
    sources = [row.source or "" for row in rows]
    predictions = [row.prediction for row in rows]
    references = [row.reference for row in rows]
    scores = Scores()
    for metric in metrics:
        reason = metric.unavailable()
        if reason is None:
            try:
                scores.computed.update(metric.score(sources, predictions, references))
                continue
            except HarnessError as error:
                reason = " ".join(filter(None, (error.message, error.hint)))
        scores.not_computed.update(dict.fromkeys(metric.names, reason))
    return scores


def named_metrics(names: Iterable[str], registry: Registry) -> dict[str, Metric]:
    """Build the metrics that a user asked for by name.

    Raises:
        HarnessError: there is no name, one is not registered, or a metric cannot be computed here.
    """
    chosen: dict[str, Metric] = {}
    for name in dict.fromkeys(names):
        metric: Metric = registry.find(name).load()()
        if reason := metric.unavailable():
            raise HarnessError(f"{name} cannot be computed.", reason)
        chosen[name] = metric
    if not chosen:
        raise HarnessError("--metrics names no metric.", "See: harness list metrics")
    return chosen


def not_computed_note(not_computed: dict[str, str]) -> str:
    """Say in a line what was not computed, and why, or where that is written."""
    reasons = set(not_computed.values())
    why = reasons.pop() if len(reasons) == 1 else "report.json says why and what would mend it."
    return f"Not computed: {', '.join(not_computed)}. {why}"


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
