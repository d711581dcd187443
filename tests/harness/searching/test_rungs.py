"""Rungs and races: who climbs, what that costs, and that a good candidate survives."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from harness.searching.candidates import Candidate, EvalMetric
from harness.searching.racing import Track, race
from harness.searching.rungs import (
    SHARES,
    Standing,
    jobs_of,
    promoted,
    ranked,
    rung_steps,
    training_shares,
)
from harness.searching.runs import Reached

UP, DOWN = EvalMetric("rouge1", True), EvalMetric("wer", False)


def test_rungs_are_evaluations_and_the_last_one_is_the_end() -> None:
    assert rung_steps(120, 60) == [60, 120]
    assert rung_steps(120, 7) == [35, 63, 120]
    assert rung_steps(10, 100) == [10]
    assert rung_steps(400, 100) == [100, 200, 400]


def test_those_that_keep_enough_come_before_those_that_do_not() -> None:
    cheap_but_poor = Standing(0, 0.90, 9.0, 0.1)
    good = Standing(1, 0.96, 1.2, 0.9)
    failed = Standing(2, None, 2.0, 0.5)
    assert [s.number for s in ranked([cheap_but_poor, good, failed], 0.95)] == [1, 0]
    assert [s.number for s in ranked([cheap_but_poor, good, failed], 0.5)] == [1, 0]


def test_a_beaten_candidate_comes_after_the_front() -> None:
    best = Standing(0, 0.99, 1.2, 0.9)
    fast = Standing(1, 0.96, 2.0, 0.5)
    beaten_by_best = Standing(2, 0.98, 1.1, 0.9)
    assert [s.number for s in ranked([beaten_by_best, fast, best], 0.95)] == [0, 1, 2]


def test_ranks_agree_with_a_count_of_who_beats_whom() -> None:
    """The first front of Deb's sorting is the set of candidates that nobody beats."""
    dice = random.Random(0)
    for _ in range(50):
        drawn = [
            Standing(n, dice.choice([0.95, 0.97, 1.0]), dice.choice([1, 2, 3]), dice.choice([1, 2]))
            for n in range(8)
        ]
        values = {s.number: (s.quality or 0, s.speed, -s.memory) for s in drawn}
        unbeaten = {
            a
            for a, of_a in values.items()
            if not any(
                of_b != of_a and all(x >= y for x, y in zip(of_b, of_a, strict=True))
                for of_b in values.values()
            )
        }
        order = [s.number for s in ranked(drawn, 0.9)]
        assert set(order[: len(unbeaten)]) == unbeaten
        assert sorted(order) == list(range(8))


def test_the_larger_half_of_an_odd_number_climbs() -> None:
    standings = [Standing(n, 1 - n / 10, 1.0, 1.0) for n in range(5)]
    assert promoted(standings, 0.0) == [0, 1, 2]


class Curves:
    """Trains nothing: a candidate's score rises towards its recipe's limit; None fails."""

    def __init__(self, limits: dict[str, float | None]) -> None:
        self.limits = limits
        self.at: dict[Candidate, int] = {}
        self.steps = 0
        self.jobs = 0

    def value(self, candidate: Candidate, step: int) -> float | None:
        limit = self.limits[candidate.recipe]
        return None if limit is None else limit * (1 - 0.5 ** (1 + step / 50))

    def reach(self, candidates: Sequence[Candidate], step: int) -> list[Reached]:
        reached = []
        for candidate in candidates:
            self.steps += step - self.at.get(candidate, 0)
            self.jobs += 1
            self.at[candidate] = step
            found = self.value(candidate, step)
            reached.append(Reached(found, "nan: it diverged" if found is None else None))
        return reached


def track(steps: Sequence[int], metric: EvalMetric = UP) -> Track:
    """Full fine-tuning's limit is 40."""
    reference = [40 * (1 - 0.5 ** (1 + step / 50)) for step in steps]
    return Track(steps, metric, reference, 0.95)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_race_costs_what_was_foreseen(count: int) -> None:
    limits: dict[str, float | None] = {f"r{n}": 30.0 + n for n in range(count)}
    candidates = [Candidate(recipe) for recipe in limits]
    runs = Curves(limits)
    steps = [int(100 * share) for share in SHARES]
    raced = race(candidates, track(steps), runs, dict.fromkeys(candidates, (1.5, 0.5)))
    assert runs.steps == pytest.approx(100 * training_shares(count, SHARES))
    assert runs.jobs == jobs_of(count, len(SHARES))
    assert raced.finished[0] == candidates[-1]
    assert [len(raced.scores[c]) for c in raced.finished] == [3] * len(raced.finished)


def test_one_that_is_left_alone_is_not_stopped_again() -> None:
    candidate = Candidate("only")
    runs = Curves({"only": 40.0})
    raced = race([candidate], track([25, 50, 100]), runs, {candidate: (1.0, 1.0)})
    assert (runs.jobs, runs.steps) == (1, 100)
    assert raced.scores[candidate] == [runs.value(candidate, step) for step in (25, 50, 100)]


def test_a_candidate_that_fails_is_left_behind_with_its_reason() -> None:
    candidates = [Candidate("good"), Candidate("bad"), Candidate("poor")]
    runs = Curves({"good": 41.0, "bad": None, "poor": 10.0})
    raced = race(candidates, track([25, 50, 100]), runs, dict.fromkeys(candidates, (1.5, 0.5)))
    assert raced.failures == {candidates[1]: "nan: it diverged"}
    assert raced.finished == [candidates[0]]
    assert runs.at[candidates[1]] == 25


def test_a_cheaper_candidate_that_keeps_enough_outlives_a_better_one_that_costs_more() -> None:
    names = ["best", "beaten", "cheap", "poor"]
    candidates = [Candidate(name) for name in names]
    runs = Curves({"best": 40.0, "beaten": 39.9, "cheap": 39.0, "poor": 30.0})
    costs = {"best": (1.2, 0.9), "beaten": (1.1, 0.9), "cheap": (2.0, 0.5), "poor": (3.0, 0.2)}
    raced = race(candidates, track([50, 100]), runs, {c: costs[c.recipe] for c in candidates})
    assert [c.recipe for c in raced.finished] == ["best", "cheap"]


def test_shares_follow_the_direction_of_the_metric() -> None:
    assert UP.share(38.0, 40.0) == 0.95
    assert DOWN.share(0.5, 0.4) == 0.8
    assert UP.share(None, 40.0) is None
    assert UP.share(1.0, 0.0) == 0.0
    assert UP.best([1.0, 3.0, 2.0]) == 3.0
    assert DOWN.best([1.0, 3.0, 2.0]) == 1.0
