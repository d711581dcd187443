"""Seeded random choices that are equal on every version of Python."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Random choices based on ``Random.random``, whose sequence Python guarantees.

    Args:
        key: equal keys give equal choices.
    """

    def __init__(self, key: str) -> None:
        self._random = Random(key).random

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self._random() * len(options))]

    def between(self, least: int, greatest: int) -> int:
        """Return an integer from least to greatest, both included."""
        return least + int(self._random() * (greatest - least + 1))

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Return up to ``count`` different options in random order."""
        pool = list(options)
        return [pool.pop(int(self._random() * len(pool))) for _ in range(min(count, len(pool)))]
