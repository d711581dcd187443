"""Scoring of predictions with metrics."""

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
    """The scores of a set of predictions.

    Attributes:
        example_count: number of examples.
        computed: name of a score -> score.
        chosen: name of a score -> its metric with options, where some were set.
        not_computed: name of a score -> the reason, and the remedy.
        notes: what was detected while the predictions were read.
    """

    example_count: int
    computed: dict[str, Score] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Value]:
        """Return corpus values with their confidence intervals, in the report's form."""
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
        """Return the value of every score for one example, rounded to four digits."""
        return {name: round(score.examples[index], 4) for name, score in self.computed.items()}


def score(metrics: Iterable[Metric], rows: Sequence[PredictionRow]) -> Scores:
    """Score predictions with every metric that can be computed here.

    A metric that fails (because its weights cannot be read, say) does not stop the others: the
    reason is in ``Scores.not_computed``.
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
            reason = reason or "It does not support several references for one example."
        reason = reason or metric.unreadable(references)
        if reason is None:
            try:
                # All references are strings here, unless the metric takes lists.
                computed = metric.score(sources, predictions, cast(Sequence[str], references))
                if clusters is not None:
                    computed = {name: one.clustered(clusters) for name, one in computed.items()}
                scores.computed.update(computed)
                if metric.chosen:
                    scores.chosen.update(dict.fromkeys(computed, metric.chosen))
                continue
            except HarnessError as error:
                reason = " ".join(filter(None, (error.message, error.hint)))
        scores.not_computed.update(dict.fromkeys(metric.names, reason))
    return scores


def takes_several(metric: Metric) -> bool:
    """Return whether a metric takes lists of references."""
    return metric.several_references


def clusters_of(rows: Sequence[PredictionRow]) -> list[str] | None:
    """Return the cluster of each row, or None if all rows are independent.

    A row without a cluster is a cluster of its own.
    """
    if all(row.cluster is None for row in rows):
        return None
    # The prefixes keep line numbers and the data set's own names apart.
    return [f"line {row.line}" if row.cluster is None else f"={row.cluster}" for row in rows]


def references_of(examples: Any, metric: Metric) -> list[Any]:
    """Return the references of a split's examples: lists if the metric takes them, else texts."""
    if "references" in examples.column_names and takes_several(metric):
        return list(examples["references"])
    return list(examples["target"])


def named_metrics(names: Iterable[str], registry: Registry) -> dict[str, Metric]:
    """Build the metrics that a user requested by name, with their options.

    Args:
        names: names of metrics, with options where some were set.
        registry: the registered metrics.

    Raises:
        HarnessError: there is no name, one is not registered, or a metric cannot be computed here.
    """
    metrics: dict[str, Metric] = {}
    for name in dict.fromkeys(names):
        metric = make_metric(name, registry)
        if reason := metric.unavailable():
            raise HarnessError(f"{name} cannot be computed.", reason)
        metrics[name] = metric
    if not metrics:
        raise HarnessError("--metrics names no metric.", "See: harness list metrics")
    return metrics


def not_computed_note(not_computed: dict[str, str]) -> str:
    """Return a note that lists the scores not computed, with their reason or where to find it."""
    reasons = set(not_computed.values())
    why = reasons.pop() if len(reasons) == 1 else "report.json gives the reasons and the remedies."
    return f"Not computed: {', '.join(not_computed)}. {why}"


def metric_of(metrics: Sequence[Metric], name: str) -> Metric:
    """Return the metric that computes the score which chooses the best weights.

    Args:
        metrics: the metrics of the run.
        name: name of the score.

    Raises:
        HarnessError: no metric computes it, or its metric cannot be computed here.
    """
    for metric in metrics:
        if name in metric.names:
            if reason := metric.unavailable():
                raise HarnessError(f"{name} cannot choose the best weights.", reason)
            return metric
    names = ", ".join(dict.fromkeys(score for metric in metrics for score in metric.names))
    raise HarnessError(
        f"No metric of this run computes {name!r}, which should choose the best weights.",
        f"Choose one of: {names}. Or add its metric: --metrics NAME,...",
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
