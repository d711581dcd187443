"""The Pareto front: recipes that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.reporting.summary import Estimate


def pareto_front(points: Mapping[str, Sequence[Estimate]]) -> set[str]:
    """Return the names of the points that no other point beats.

    One point beats another if it is better by at least one objective and worse by none. Overlapping
    intervals are a tie. Ties are not transitive, so only a point on the front removes another: for
    every removed point, the front has one that is better by some objective and worse by none.
    Points that beat each other in a circle stay on the front.

    Args:
        points: name -> one estimate per objective; more is better for each objective.
    """
    front: set[str] = set()
    left = list(points)
    while left:
        unbeaten = [
            name for name in left if not any(_beats(points[other], points[name]) for other in left)
        ]
        best = set(unbeaten or left)
        front |= best
        left = [
            name
            for name in left
            if name not in best and not any(_beats(points[other], points[name]) for other in best)
        ]
    return front


def _beats(point: Sequence[Estimate], other: Sequence[Estimate]) -> bool:
    pairs = list(zip(point, other, strict=True))
    return any(_above(a, b) for a, b in pairs) and not any(_above(b, a) for a, b in pairs)


def _above(estimate: Estimate, other: Estimate) -> bool:
    low = estimate.value if estimate.low is None else estimate.low
    high = other.value if other.high is None else other.high
    return low > high
