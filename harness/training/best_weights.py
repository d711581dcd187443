"""The rule that chooses the best weights among a training's evaluations."""

from __future__ import annotations

import math


def is_better(value: float, best: float, higher_is_better: bool) -> bool:
    """Return whether a value of the best-weights metric beats the best one so far.

    NaN never wins, and loses to any number. Of equal values the earlier one stays.
    """
    if math.isnan(value) or math.isnan(best):
        return not math.isnan(value)
    return value > best if higher_is_better else value < best
