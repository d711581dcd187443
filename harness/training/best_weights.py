"""Which of a training's evaluations has the best weights."""

from __future__ import annotations

import math


def is_better(value: float, best: float, higher_is_better: bool) -> bool:
    """Whether a value of the metric that chooses beats the best one so far.

    What is not a number never wins, and loses to any number. Of equal values the earlier one stays.
    """
    if math.isnan(value) or math.isnan(best):
        return not math.isnan(value)
    return value > best if higher_is_better else value < best
