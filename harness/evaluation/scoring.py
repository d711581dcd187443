"""Scoring predictions with metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from harness.api.metric import Metric, Score, make_metric
from harness.api.registry import Registry
from harness.errors import HarnessError
from harness.evaluation.predictions import PredictionRow
from harness.records.display import html_table
from harness.records.report import Value
from harness.statistics.intervals import bootstrap_interval


@dataclass(frozen=True)
class Scores:
    """What metrics say of predictions.

    Attributes:
        example_count: the number of examples.
        computed: metric -> score.
        chosen: score -> the metric with its options, where some were chosen.
        not_computed: metric -> why, and what would mend it.
        notes: what was guessed while the predictions were read.
    """

    example_count: int
    computed: dict[str, Score] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Value]:
        """Return corpus values with their intervals, as the report holds them."""
        return {name: _value(score, self.chosen.get(name)) for name, score in self.computed.items()}

    def _repr_html_(self) -> str:
        rows = []
        for name, value in self.values().items():
            interval = f"{value.ci[0]:.2f} to {value.ci[1]:.2f}" if value.ci else "one example"
            rows.append((name, f"{value.value:.2f}", interval))
        missing = [f"{name} was not computed: {why}" for name, why in self.not_computed.items()]
        headings = ("metric", "value", "95 % interval")
        return html_table(
            f"{self.example_count:,} examples", rows, headings, [*self.notes, *missing]
        )

    def of_example(self, index: int) -> dict[str, float]:
        """Return every metric's value of one example."""
        return {name: round(score.examples[index], 4) for name, score in self.computed.items()}


def score(metrics: Iterable[Metric], rows: Sequence[PredictionRow]) -> Scores:
    """Score with every metric that can be computed here.

    One that turns out broken (weights that cannot be read, say) must not take the others with it.
    """
    sources = [row.source or "" for row in rows]
    predictions = [row.prediction for row in rows]
    references = [row.reference for row in rows]
    clusters = clusters_of(rows)
    several = any(isinstance(reference, list) for reference in references)
    scores = Scores(len(rows))
    for metric in metrics:
        reason = metric.unavailable()
        if several and not takes_several(metric):
            reason = reason or "It has no convention for several references of one example."
        reason = reason or metric.unreadable(references)
        if reason is None:
            try:
                # Strings only, unless the metric takes lists.
                made = metric.score(sources, predictions, cast(Sequence[str], references))
                if clusters is not None:
                    made = {name: one.clustered(clusters) for name, one in made.items()}
                scores.computed.update(made)
                if metric.chosen:
                    scores.chosen.update(dict.fromkeys(made, metric.chosen))
                continue
            except HarnessError as error:
                reason = " ".join(filter(None, (error.message, error.hint)))
        scores.not_computed.update(dict.fromkeys(metric.names, reason))
    return scores


def takes_several(metric: Metric) -> bool:
    """Whether a metric takes lists of references."""
    return metric.several_references


def clusters_of(rows: Sequence[PredictionRow]) -> list[str] | None:
    """Return the cluster of each row, or None where every row is one of its own."""
    if all(row.cluster is None for row in rows):
        return None
    # A line number is no name that a data set gives.
    return [f"line {row.line}" if row.cluster is None else f"={row.cluster}" for row in rows]


def references_of(examples: Any, metric: Metric) -> list[Any]:
    """Return the references of a split's examples in the form that a metric takes."""
    if "references" in examples.column_names and takes_several(metric):
        return list(examples["references"])
    return list(examples["target"])


def named_metrics(names: Iterable[str], registry: Registry) -> dict[str, Metric]:
    """Build the metrics that a user requested by name, with their options.

    Raises:
        HarnessError: there is no name, one is not registered, or a metric cannot be computed here.
    """
    chosen: dict[str, Metric] = {}
    for name in dict.fromkeys(names):
        metric = make_metric(name, registry)
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
    """Return the metric that computes a named score.

    Raises:
        HarnessError: none does, or the one that does cannot here.
    """
    for metric in metrics:
        if name in metric.names:
            if reason := metric.unavailable():
                raise HarnessError(f"{name} cannot choose the best weights.", reason)
            return metric
    known = ", ".join(dict.fromkeys(each for metric in metrics for each in metric.names))
    raise HarnessError(
        f"No metric of this run computes {name!r}, which is to choose the best weights.",
        f"Choose one of: {known}. Or add its metric: --metrics NAME,...",
    )


def _value(score: Score, chosen: str | None) -> Value:
    several = len(score.statistics) > 1
    interval = bootstrap_interval(score, seed=0) if several else None
    return Value(
        value=score.value,
        ci=(interval.low, interval.high) if interval else None,
        signature=score.signature,
        higher_is_better=score.higher_is_better,
        metric=chosen,
    )
