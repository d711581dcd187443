"""The clock that all durations are read from; a test can replace it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def seconds(self) -> float:
        """Return the seconds since some fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` seconds."""


class SystemClock:
    """The clock of the machine, at its highest resolution."""

    def seconds(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Block the thread."""
        time.sleep(seconds)


class ManualClock:
    """A clock that advances only by sleeping, so that a test knows every duration."""

    def __init__(self) -> None:
        self._now = 0.0

    def seconds(self) -> float:
        """Return the seconds slept so far."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance the time without waiting."""
        self._now += seconds


_clock: Clock = SystemClock()


def use(clock: Clock) -> Clock:
    """Read from another clock from now on, in this process; return the one that was used before."""
    global _clock
    before, _clock = _clock, clock
    return before


def seconds() -> float:
    """Return the seconds since some fixed moment; only differences mean something."""
    return _clock.seconds()


def sleep(duration: float) -> None:
    """Return when ``duration`` seconds have passed."""
    _clock.sleep(duration)
