"""Scoring a suite: computed scores, reasons for missing ones, and the hash of the data."""

from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError, Metric, Score
from harness.data.hashing import data_hash
from harness.evaluation.predictions import PredictionRow
from harness.evaluation.scoring import metric_of, not_computed_note, score
from harness.statistics.intervals import bootstrap_interval


class Overlap(Metric):
    """Scores the share of reference words in the prediction, and the missing words."""

    names = ("hits", "shortfall")

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        pairs = [(p.split(), r.split()) for p, r in zip(predictions, references, strict=True)]
        hits = [100 * len(set(p) & set(r)) / len(set(r)) for p, r in pairs]
        shortfall = [float(len(r) - len(p)) for p, r in pairs]
        return {
            "hits": Score.mean(hits, "hits|v1"),
            "shortfall": Score.mean(shortfall, "shortfall|v1", higher_is_better=False),
        }


class Unavailable(Metric):
    names = ("judge", "judge_f1")

    def unavailable(self) -> str | None:
        return "There is no model for it. Supply one with --judge FOLDER"

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        raise AssertionError("It was said to be unavailable.")


class Broken(Metric):
    names = ("broken",)

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        raise HarnessError("Its weights are damaged.", "Fetch them again.")


PAIRS = [("a b", "a b c"), ("c", "c"), ("a b c d", "a"), ("x", "y z")]
ROWS = [PredictionRow(number, *pair, None) for number, pair in enumerate(PAIRS, start=1)]


def test_every_metric_that_can_be_is_computed() -> None:
    scores = score([Unavailable(), Broken(), Overlap()], ROWS)
    assert list(scores.computed) == ["hits", "shortfall"]
    judge = "There is no model for it. Supply one with --judge FOLDER"
    broken = "Its weights are damaged. Fetch them again."
    assert scores.not_computed == {"judge": judge, "judge_f1": judge, "broken": broken}
    assert not_computed_note(scores.not_computed) == (
        "Not computed: judge, judge_f1, broken. report.json gives the reasons and the remedies."
    )
    assert not_computed_note({"broken": broken}) == f"Not computed: broken. {broken}"
    assert scores.of_example(0) == {"hits": 66.6667, "shortfall": 1}
    assert scores.of_example(3) == {"hits": 0, "shortfall": 1}


def test_values_carry_interval_signature_and_direction() -> None:
    scores = score([Overlap()], ROWS)
    hits, shortfall = scores.values().values()
    assert hits.value == pytest.approx(np.mean([200 / 3, 100, 100, 0]))
    interval = bootstrap_interval(scores.computed["hits"], seed=0)
    assert hits.ci == (interval.low, interval.high)
    assert hits.ci[0] < hits.value < hits.ci[1]
    assert (hits.signature, hits.higher_is_better) == ("hits|v1", True)
    assert (shortfall.signature, shortfall.higher_is_better) == ("shortfall|v1", False)


def test_one_example_has_a_value_and_no_interval() -> None:
    value = score([Overlap()], [PredictionRow(1, "a", "a b", None)]).values()["hits"]
    assert (value.value, value.ci) == (50, None)


def test_the_metric_that_computes_a_score_is_found_by_its_name() -> None:
    overlap = Overlap()
    assert metric_of([Unavailable(), overlap], "shortfall") is overlap
    with pytest.raises(HarnessError, match="computes 'rouge1'") as raised:
        metric_of([overlap], "rouge1")
    assert "hits, shortfall" in (raised.value.hint or "")
    with pytest.raises(HarnessError, match="cannot choose the best weights"):
        metric_of([Unavailable()], Unavailable.names[0])


TEXTS = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4)


def split(pairs: Sequence[tuple[str, str]]) -> Dataset:
    return Dataset.from_dict({"source": [s for s, _ in pairs], "target": [t for _, t in pairs]})


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_unequal_data_have_unequal_hashes(
    one: list[tuple[str, str]],
    two: list[tuple[str, str]],
    three: list[tuple[str, str]],
    four: list[tuple[str, str]],
) -> None:
    same_data = (one, two) == (three, four)
    same_hash = data_hash(split(one), split(two)) == data_hash(split(three), split(four))
    assert same_hash == same_data


@pytest.mark.parametrize(
    "other",
    [
        [[("b", "c"), ("a", "d")]],
        [[("a", "c"), ("b", "d")]],
        [[("a", "d")], [("b", "c")]],
        [[("ad", ""), ("b", "c")]],
        [[("a", "d"), ("b", "c")], []],
        [[("d", "a"), ("c", "b")]],
    ],
    ids=["order", "pairing", "border", "text", "empty split", "roles"],
)
def test_the_hash_depends_on_order_pairing_and_splits(other: list[list[tuple[str, str]]]) -> None:
    assert data_hash(*map(split, other)) != data_hash(split([("a", "d"), ("b", "c")]))
