"""The scores of a run's test examples, from the file that the run left."""

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
from harness.records.run_folder import PREDICTIONS

_ROUNDED = 1e-3
"""How far a mean of stored scores, which are rounded to four digits, may be from the report's."""


@dataclass(frozen=True)
class RunScores:
    """Scores of one run's test examples.

    Attributes:
        ids: of the examples, in order.
        scores: metric -> score.
        missing: metric -> why it has none.
    """

    ids: list[str]
    scores: dict[str, Score]
    missing: dict[str, str]


def read_scores(folder: Path, report: Report, metrics: Iterable[str]) -> RunScores:
    """Read the scores that a run's comparison with another rests on.

    A metric whose corpus value is the mean of its examples' is taken as stored. Any other, such as
    BLEU, is computed again from the stored texts, with the implementation that the report names.

    Raises:
        HarnessError: the predictions are missing or damaged.
    """
    rows = read_prediction_rows(folder)
    missing: dict[str, str] = {}
    scores: dict[str, Score] = {}
    made: dict[str, Score] = {}
    for name in metrics:
        if name not in report.quality:
            continue
        value = report.quality[name]
        try:
            examples = [float(row["scores"][name]) for row in rows]
        except (KeyError, TypeError, ValueError):
            missing[name] = "its examples' scores are not stored"
            continue
        if not all(map(math.isfinite, examples)):
            missing[name] = "some of its examples' scores are not finite"
            continue
        score = Score.mean(examples, value.signature, value.higher_is_better)
        if abs(score.value - value.value) > _ROUNDED:
            found = _score_again(name, value, rows, made)
            if isinstance(found, str):
                missing[name] = found
                continue
            score = found
        scores[name] = score
    scores = by_cluster(scores, rows)
    return RunScores([str(row["id"]) for row in rows], scores, missing)


def by_cluster(scores: dict[str, Score], rows: list[dict[str, Any]]) -> dict[str, Score]:
    """Return scores whose bootstrap draws the clusters that the rows name, if any."""
    if not any("cluster" in row for row in rows):
        return scores
    clusters = [str(row.get("cluster", row["id"])) for row in rows]
    return {name: score.clustered(clusters) for name, score in scores.items()}


def references_in(rows: list[dict[str, Any]]) -> list[Any]:
    """Return the references of lines of predictions; a list where an example has several."""
    found = (row.get("reference", "") for row in rows)
    return [list(map(str, each)) if isinstance(each, list) else str(each) for each in found]


def read_prediction_rows(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's predictions.

    Raises:
        HarnessError: there are none, or they are damaged.
    """
    path = folder / PREDICTIONS
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise HarnessError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise HarnessError(f"{str(path)!r} is damaged: {error}.") from error
    if not rows or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise HarnessError(f"{str(path)!r} holds no predictions.")
    return rows


def metric_for(name: str, value: Value) -> Metric | str:
    """Return the metric that yields a reported value, or why there is none."""
    from harness.api.plugins import installed

    if value.metric is not None:
        try:
            chosen = make_metric(value.metric, installed().metrics)
        except HarnessError as error:
            return str(error)
        return chosen.unavailable() or chosen
    for entry in installed().metrics:
        metric: Metric = entry.load()()
        if name in metric.names:
            return metric.unavailable() or metric
    return "no installed plugin computes it"


def _score_again(
    name: str, value: Value, rows: list[dict[str, Any]], made: dict[str, Score]
) -> Score | str:
    """Return the score, or why there is none; ``made`` holds and gets all that a metric yields."""
    if name not in made:
        metric = metric_for(name, value)
        if isinstance(metric, str):
            return metric
        sources, predictions = ([str(row.get(field, "")) for row in rows] for field in _TEXTS)
        made |= metric.score(sources, predictions, references_in(rows))
    score = made[name]
    if score.signature != value.signature:
        return f"it was computed as {value.signature}, and here it would be {score.signature}"
    if abs(score.value - value.value) > _ROUNDED:
        return "the stored predictions do not have the reported score"
    return score


_TEXTS = ("source", "prediction")
