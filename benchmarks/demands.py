"""Demands of a benchmark on its input and its work; one that is not met ends it without output."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def demand(holds: bool, otherwise: str) -> None:
    """End the program with a reason unless a condition holds.

    Args:
        holds: the condition.
        otherwise: the reason, printed if the condition does not hold.
    """
    if not holds:
        raise SystemExit(f"degenerate: {otherwise}")


def demand_spread(lengths: Sequence[int], of: str) -> None:
    """End the program if lengths hardly differ: a standard deviation under 20 % of the mean.

    Args:
        lengths: two or more lengths.
        of: name of the things that have these lengths, for the message.
    """
    mean = statistics.mean(lengths)
    spread = statistics.pstdev(lengths) / mean if mean else 0
    demand(spread >= 0.2, f"{of} are of much the same length, {mean:.0f} and {spread:.0%} around")
