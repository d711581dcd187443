"""A race: candidates train to a rung, and the better half goes on to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.searching.candidates import Candidate, EvalMetric
from harness.searching.rungs import Standing, promoted
from harness.searching.runs import Reached


class Trains(Protocol):
    """Trains candidates to a step, as ``Runs`` does."""

    def value(self, candidate: Candidate, step: int) -> float | None:
        """Return a candidate's best score up to a step that it has reached; None otherwise."""

    def reach(self, candidates: Sequence[Candidate], step: int) -> list[Reached]:
        """Train candidates up to a step, from where each was stopped before."""


@dataclass
class Raced:
    """The course of a race.

    Attributes:
        scores: the scores of each candidate at the rungs that it reached.
        failures: candidate -> reason why its training failed.
        finished: the candidates that were trained to the end.
    """

    scores: dict[Candidate, list[float | None]] = field(default_factory=dict)
    failures: dict[Candidate, str] = field(default_factory=dict)
    finished: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Track:
    """The rungs, and full fine-tuning at each of them.

    Attributes:
        steps: the optimizer steps of the rungs.
        metric: the score that is compared.
        reference: full fine-tuning's score at each rung; empty while it races itself.
        min_quality: share of it that is enough.
    """

    steps: Sequence[int]
    metric: EvalMetric
    reference: Sequence[float]
    min_quality: float

    @property
    def shares(self) -> list[float]:
        """The rungs as shares of the whole training."""
        return [step / self.steps[-1] for step in self.steps]

    def share(self, scores: Sequence[float | None]) -> float | None:
        """Return a candidate's last score divided by full fine-tuning's at the same rung."""
        if not scores or not self.reference:
            return None
        return self.metric.share(scores[-1], self.reference[len(scores) - 1])


def race(
    candidates: Sequence[Candidate],
    track: Track,
    runs: Trains,
    costs: Mapping[Candidate, tuple[float, float]],
    on_rung: Callable[[int, int], None] = lambda *_: None,
) -> Raced:
    """Train candidates from rung to rung; at each the worse half is stopped.

    Args:
        candidates: the candidates.
        track: the rungs.
        runs: trains the candidates.
        costs: speed and memory of each candidate, relative to full fine-tuning.
        on_rung: is called with a step and the number of candidates that train up to it.
    """
    raced = Raced({candidate: [] for candidate in candidates})
    alive = list(candidates)
    for number, step in enumerate(track.steps):
        # One that is left alone has nobody to be compared with before the end.
        until = step if len(alive) > 1 else track.steps[-1]
        on_rung(until, len(alive))
        for candidate, reached in zip(alive, runs.reach(alive, until), strict=True):
            if reached.value is None:
                raced.failures[candidate] = reached.failure or "unknown"
        alive = [candidate for candidate in alive if candidate not in raced.failures]
        passed = [other for other in track.steps[number:] if other <= until]
        for candidate in alive:
            raced.scores[candidate] += [runs.value(candidate, other) for other in passed]
        if not alive or until == track.steps[-1]:
            break
        alive = _better_half(alive, raced, track, costs)
    raced.finished = alive
    return raced


def _better_half(
    alive: Sequence[Candidate],
    raced: Raced,
    track: Track,
    costs: Mapping[Candidate, tuple[float, float]],
) -> list[Candidate]:
    standings = []
    last = [raced.scores[candidate][-1] for candidate in alive]
    best = track.metric.best([value for value in last if value is not None])
    for number, (candidate, value) in enumerate(zip(alive, last, strict=True)):
        share = track.share(raced.scores[candidate])
        if not track.reference:
            share = track.metric.share(value, best)
        standings.append(Standing(number, share, *costs[candidate]))
    return [alive[number] for number in promoted(standings, track.min_quality)]
