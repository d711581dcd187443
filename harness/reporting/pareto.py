"""The Pareto front: recipes that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.reporting.summary import Estimate


def pareto_front(points: Mapping[str, Sequence[Estimate]]) -> set[str]:
    """Return the names of the points that no other point beats.

    One point beats another if it is better by at least one objective and worse by none; where
    intervals overlap it is neither. Such ties are not transitive, so a point falls only to one that
    is itself on the front: for every point that is not, there is one on the front that is no worse
    within the intervals, and better by something. Points that beat each other in a circle stay.

    Args:
        points: name -> one estimate an objective, of all of which more is better.
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


def _beats(ours: Sequence[Estimate], theirs: Sequence[Estimate]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return any(_above(a, b) for a, b in pairs) and not any(_above(b, a) for a, b in pairs)


def _above(ours: Estimate, theirs: Estimate) -> bool:
    low = ours.value if ours.low is None else ours.low
    high = theirs.value if theirs.high is None else theirs.high
    return low > high
