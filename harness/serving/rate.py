"""The rate at which the model decodes, from which waiting times are estimated."""

from __future__ import annotations

_WEIGHT = 0.2
"""Weight of the newest batch in the running mean."""


class Rate:
    """A running mean of tokens per second, weighted towards the newest batches."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Record a batch.

        Args:
            tokens: tokens of its texts, as they count towards the budget of a batch.
            seconds: seconds that it took.
        """
        self._tokens = (1 - _WEIGHT) * self._tokens + _WEIGHT * tokens
        self._seconds = (1 - _WEIGHT) * self._seconds + _WEIGHT * seconds

    def seconds_for(self, tokens: int) -> float | None:
        """Return the seconds that so many tokens take; None before anything was measured."""
        if not self._tokens:
            return None
        return tokens * self._seconds / self._tokens
