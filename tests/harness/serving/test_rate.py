"""The estimated time that waiting tokens take."""

from __future__ import annotations

import pytest

from harness.serving.rate import Rate


def test_nothing_is_estimated_before_a_batch_was_measured() -> None:
    assert Rate().seconds_for(100) is None


def test_equal_batches_give_their_own_rate() -> None:
    rate = Rate()
    for _ in range(3):
        rate.record(200, 4.0)
    assert rate.seconds_for(100) == pytest.approx(2.0)


def test_the_newest_batches_weigh_most() -> None:
    rate = Rate()
    for _ in range(20):
        rate.record(100, 1.0)
    for _ in range(20):
        rate.record(100, 3.0)
    seconds = rate.seconds_for(100)
    assert seconds is not None
    assert 2.9 < seconds < 3.0
