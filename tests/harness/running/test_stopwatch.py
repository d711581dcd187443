"""The wall time of a run counts earlier starts."""

from __future__ import annotations

import pytest

from harness import clock
from harness.running.stopwatch import Stopwatch


@pytest.mark.usefixtures("manual_clock")
def test_seconds_of_earlier_starts_are_added() -> None:
    stopwatch = Stopwatch()
    clock.sleep(2)
    stopwatch.carry(10)
    clock.sleep(1)
    assert stopwatch.seconds == 13
