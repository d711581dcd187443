"""Wall time of a run, over all its starts."""

from __future__ import annotations

from harness import clock


class Stopwatch:
    """Counts seconds since its creation, plus those of earlier starts whose work was kept."""

    def __init__(self) -> None:
        self._began = clock.seconds()
        self._carried = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was created, plus those that were carried over."""
        return clock.seconds() - self._began + self._carried

    def carry(self, seconds: float) -> None:
        """Add the seconds of an earlier start."""
        self._carried += seconds
