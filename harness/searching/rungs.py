"""Rungs of partial training, and the candidates that climb from one to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARES = (0.25, 0.5, 1.0)
"""Shares of the training steps after which candidates are compared."""


@dataclass(frozen=True)
class Standing:
    """Costs and quality of a candidate at a rung.

    Attributes:
        number: the candidate's number.
        quality: share of full fine-tuning's quality at the same step; None if training failed.
        speed: speed relative to full fine-tuning that arithmetic would allow.
        memory: planned memory relative to full fine-tuning.
    """

    number: int
    quality: float | None
    speed: float
    memory: float

    def beats(self, other: Standing) -> bool:
        """Return whether this one is better by some objective and worse by none."""
        own, theirs = self._objectives(), other._objectives()
        pairs = list(zip(own, theirs, strict=True))
        return any(a > b for a, b in pairs) and all(a >= b for a, b in pairs)

    def _objectives(self) -> tuple[float, float, float]:
        return self.quality or 0.0, self.speed, -self.memory


def rung_steps(planned: int, interval: int) -> list[int]:
    """Return the steps at which candidates are compared: evaluations, the last one at the end.

    Args:
        planned: optimizer steps of the whole training.
        interval: optimizer steps between two evaluations.
    """
    steps = [min(planned, math.ceil(share * planned / interval) * interval) for share in SHARES]
    return sorted(set(steps))


def ranked(standings: Sequence[Standing], min_quality: float) -> list[Standing]:
    """Order candidates, the most promising first; those whose training failed are left out.

    Those that keep enough quality come first (Deb's rule for constraints): the ones that no other
    beats in quality, speed and memory together, then those that only the former beat, and so on;
    within such a front by quality. Those that keep too little follow, by quality.

    Args:
        standings: the candidates at one rung.
        min_quality: the share of full fine-tuning's quality that is enough.
    """
    good = [s for s in standings if s.quality is not None and s.quality >= min_quality]
    poor = [s for s in standings if s.quality is not None and s.quality < min_quality]
    order: list[Standing] = []
    while good:
        front = [s for s in good if not any(other.beats(s) for other in good)]
        order += sorted(front, key=_by_quality)
        good = [s for s in good if s not in front]
    return order + sorted(poor, key=_by_quality)


def promoted(standings: Sequence[Standing], min_quality: float) -> list[int]:
    """Return the numbers of the better half, which train on; of an odd number the larger half."""
    order = ranked(standings, min_quality)
    return [standing.number for standing in order[: math.ceil(len(standings) / 2)]]


def training_shares(count: int, shares: Sequence[float]) -> float:
    """Return how many whole trainings a round of candidates costs at most.

    Args:
        count: number of candidates.
        shares: shares of the training at the rungs, ascending, the last one 1.
    """
    total, before = 0.0, 0.0
    for share in shares:
        total += count * (share - before)
        count, before = math.ceil(count / 2), share
    return total


def jobs_of(count: int, rungs: int) -> int:
    """Return the number of times that a process starts in a round of candidates.

    One that is left alone trains to the end without another stop.
    """
    started = 0
    for _ in range(rungs):
        started += count
        if count == 1:
            break
        count = math.ceil(count / 2)
    return started


def _by_quality(standing: Standing) -> tuple[float, int]:
    return -(standing.quality or 0.0), standing.number
