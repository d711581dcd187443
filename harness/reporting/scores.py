"""Read the scores of a run's test examples from its predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.metric import Metric, Score, make_metric
from harness.errors import HarnessError
from harness.records.report import Report, Value
from harness.records.run_folder import PREDICTIONS, SCORES

_ROUNDED = 1e-3
"""Tolerance between a mean of stored scores, which are rounded, and the report's value."""


@dataclass(frozen=True)
class RunScores:
    """Scores of one run's test examples.

    Attributes:
        ids: the ids of the examples, in order.
        scores: metric -> score.
        missing: metric -> reason why its score is missing.
    """

    ids: list[str]
    scores: dict[str, Score]
    missing: dict[str, str]


def read_scores(folder: Path, report: Report, metrics: Iterable[str]) -> RunScores:
    """Read the scores of each example that a comparison of two runs needs.

    If a metric's value is the mean of its examples' scores, the stored scores are used. Any other
    metric, such as BLEU, is computed again from the stored texts with the implementation that the
    report names.

    Args:
        folder: the folder of the run.
        report: the report of the run.
        metrics: names of the metrics.

    Raises:
        HarnessError: the predictions are missing or damaged.
    """
    rows = read_prediction_rows(folder)
    missing: dict[str, str] = {}
    scores: dict[str, Score] = {}
    computed: dict[str, Score] = {}
    for name in metrics:
        if name not in report.quality:
            continue
        value = report.quality[name]
        try:
            examples = [float(row["scores"][name]) for row in rows]
        except (KeyError, TypeError, ValueError):
            missing[name] = "the scores of its examples are not stored"
            continue
        if not all(map(math.isfinite, examples)):
            missing[name] = "some scores of its examples are not finite"
            continue
        score = Score.mean(examples, value.signature, value.higher_is_better)
        if abs(score.value - value.value) > _ROUNDED:
            again = _score_again(name, value, rows, computed)
            if isinstance(again, str):
                missing[name] = again
                continue
            score = again
        scores[name] = score
    scores = by_cluster(scores, rows)
    return RunScores([str(row["id"]) for row in rows], scores, missing)


def by_cluster(scores: dict[str, Score], rows: list[dict[str, Any]]) -> dict[str, Score]:
    """Return scores whose bootstrap draws clusters of examples, if the rows name any.

    Args:
        scores: metric -> score.
        rows: the lines of the predictions, in the order of the scores' examples.
    """
    if not any("cluster" in row for row in rows):
        return scores
    clusters = [str(row.get("cluster", row["id"])) for row in rows]
    return {name: score.clustered(clusters) for name, score in scores.items()}


def references_in(rows: list[dict[str, Any]]) -> list[Any]:
    """Return the reference of each example; a list if the example has several.

    Args:
        rows: the lines of the predictions.
    """
    values = (row.get("reference", "") for row in rows)
    return [list(map(str, value)) if isinstance(value, list) else str(value) for value in values]


def read_prediction_rows(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's predictions, or its scores where the texts were not kept.

    Args:
        folder: the folder of the run.

    Raises:
        HarnessError: there are none, or they are damaged.
    """
    path = folder / PREDICTIONS
    if not path.exists() and (folder / SCORES).exists():
        path = folder / SCORES
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError as error:
        # Without the path, so that one note serves all runs that lack the file.
        raise HarnessError(f"{PREDICTIONS} is missing.") from error
    except OSError as error:
        raise HarnessError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise HarnessError(f"{str(path)!r} is damaged: {error}.") from error
    if not rows or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise HarnessError(f"{str(path)!r} holds no predictions.")
    return rows


def metric_for(name: str, value: Value) -> Metric | str:
    """Return the metric that computes a reported value, or the reason why there is none.

    Args:
        name: the name of the value.
        value: the reported value, which may name its metric.
    """
    from harness.api.plugins import installed

    if value.metric is not None:
        try:
            reported = make_metric(value.metric, installed().metrics)
        except HarnessError as error:
            return str(error)
        return reported.unavailable() or reported
    for entry in installed().metrics:
        metric: Metric = entry.load()()
        if name in metric.names:
            return metric.unavailable() or metric
    return "no installed plugin computes it"


def _score_again(
    name: str, value: Value, rows: list[dict[str, Any]], computed: dict[str, Score]
) -> Score | str:
    """Return the score, or why there is none; ``computed`` caches all scores of a metric."""
    if name not in computed:
        metric = metric_for(name, value)
        if isinstance(metric, str):
            return metric
        sources, predictions = ([str(row.get(field, "")) for row in rows] for field in _TEXTS)
        computed |= metric.score(sources, predictions, references_in(rows))
    score = computed[name]
    if score.signature != value.signature:
        return f"it was computed as {value.signature}, and here it would be {score.signature}"
    if abs(score.value - value.value) > _ROUNDED:
        return "the stored predictions do not have the reported score"
    return score


_TEXTS = ("source", "prediction")
