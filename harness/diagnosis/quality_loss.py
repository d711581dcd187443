"""Quality lost against another run, by properties of the test examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.api.metric import Score
from harness.data.text_statistics import words_of
from harness.diagnosis.record import QualityBin, QualityLoss
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.reporting.scores import read_prediction_rows, read_scores, references_in
from harness.reporting.summary import Estimate
from harness.statistics.holm import holm
from harness.statistics.intervals import compare

BINS = 4
"""Number of bins of a property."""
_FEWEST = 8
"""Least number of examples of a bin."""


def source_length(source: str, reference: str) -> float | None:
    """Return the number of words of the source."""
    return float(len(words_of(source)))


def reference_length(source: str, reference: str) -> float | None:
    """Return the number of words of the reference."""
    return float(len(words_of(reference)))


def novelty(source: str, reference: str) -> float | None:
    """Return the share of the reference's distinct words that the source lacks, in percent.

    It is None if the reference has no words.
    """
    words = set(words_of(reference))
    return 100 * len(words - set(words_of(source))) / len(words) if words else None


def position(source: str, reference: str) -> float | None:
    """Return where in the source the reference's words first stand, on average.

    0 is the first word of the source and 100 its last. It is None if they share no words, or if the
    source has fewer than two.
    """
    words = words_of(source)
    first = {word: place for place, word in reversed(list(enumerate(words)))}
    found = [first[word] for word in set(words_of(reference)) & first.keys()]
    if not found or len(words) < 2:
        return None
    return 100 * sum(found) / len(found) / (len(words) - 1)


PROPERTIES: Mapping[str, Callable[[str, str], float | None]] = {
    "words of the source": source_length,
    "words of the reference": reference_length,
    "new words in the reference, %": novelty,
    "position of its words in the source, %": position,
}
"""Name of a property -> function of source and reference."""


def compare_by_property(run: StoredRun, against: StoredRun) -> list[QualityLoss]:
    """Compare two runs on bins of their test examples, by the first metric that both have.

    Examples without a value of a property are in none of its bins. Intervals and p-values cover
    the sampling of test examples, and not the spread between training seeds.

    Args:
        run: the run.
        against: the run that it is compared with.

    Raises:
        HarnessError: the runs share no metric or have different test examples, or there are too
            few.
    """
    metric = _shared_metric(run, against)
    rows = read_prediction_rows(run.folder)
    own, other = (_score(one, metric) for one in (run, against))
    ids = [[str(row["id"]) for row in rows]]
    ids.append([str(row["id"]) for row in read_prediction_rows(against.folder)])
    if ids[0] != ids[1]:
        raise HarnessError(
            f"The runs {run.report.id} and {against.report.id} have different test examples.",
            "Compare runs of the same task with the same settings of its splits and of test.",
        )
    found = []
    for name, of in PROPERTIES.items():
        bins = [_bin(own, other, members, values) for members, values in _bins(rows, of)]
        if bins:
            found.append(QualityLoss(metric=metric, by=name, bins=bins))
    if not found:
        raise HarnessError(
            f"{len(rows)} test examples are too few to compare the runs by their properties.",
            f"It needs {2 * _FEWEST}: --set test.examples=N",
        )
    return _adjusted(found)


def _shared_metric(run: StoredRun, against: StoredRun) -> str:
    others = against.report.quality
    metric = next((name for name in run.report.quality if name in others), None)
    if metric is None:
        raise HarnessError(
            f"The runs {run.report.id} and {against.report.id} have no metric in common.",
            "Score them again: harness score RUN --metrics NAME",
        )
    return metric


def _score(run: StoredRun, metric: str) -> Score:
    read = read_scores(run.folder, run.report, [metric])
    if metric in read.missing:
        raise HarnessError(f"{metric} of {run.report.id}: {read.missing[metric]}.")
    score = read.scores[metric]
    if len(score.statistics) != len(read.ids):
        raise HarnessError(
            f"The test examples of {run.report.id} are clustered, so that bins would cut through "
            "clusters.",
            "Leave out --against.",
        )
    return score


def _bins(
    rows: list[dict[str, Any]], of: Callable[[str, str], float | None]
) -> list[tuple[list[int], list[float]]]:
    """Return the members of each bin and their values; none if there are too few."""
    references = (text if isinstance(text, str) else text[0] for text in references_in(rows))
    values = [
        of(str(row.get("source", "")), text) for row, text in zip(rows, references, strict=True)
    ]
    known = [(value, number) for number, value in enumerate(values) if value is not None]
    order = sorted(known)
    count = min(BINS, len(order) // _FEWEST)
    if count < 2 or order[0][0] == order[-1][0]:
        return []
    bins = []
    for part in np.array_split(np.arange(len(order)), count):
        chosen = [order[i] for i in part]
        bins.append(([number for _, number in chosen], [value for value, _ in chosen]))
    return bins


def _bin(run: Score, against: Score, members: list[int], values: list[float]) -> QualityBin:
    own, other = (
        replace(
            score,
            examples=[score.examples[i] for i in members],
            statistics=score.statistics[members],
        )
        for score in (run, against)
    )
    comparison = compare([own], [other])
    middle, low, high = comparison.difference
    return QualityBin(
        low=min(values),
        high=max(values),
        examples=len(members),
        value=own.value,
        against=other.value,
        difference=Estimate(value=middle, low=low, high=high, seeds=1),
        p_value=comparison.p_value,
    )


def _adjusted(found: list[QualityLoss]) -> list[QualityLoss]:
    """Return the comparisons with p-values that are adjusted for all bins together."""
    bins = {f"{loss.by}/{n}": one for loss in found for n, one in enumerate(loss.bins)}
    for name, p_value in holm({name: one.p_value for name, one in bins.items()}).items():
        bins[name].p_value = p_value
    return found
