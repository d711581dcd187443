"""``make check-intervals`` counts the intervals that hold."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from harness.records.measurements import Speed


@pytest.fixture
def intervals(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("intervals")


def speed(relative: float, floor: float = 1.02) -> Speed:
    return Speed(
        tokens_per_s=1,
        samples_per_s=1,
        relative=relative,
        relative_ci=(relative / 1.1, relative * 1.1),
        noise_floor=floor,
        baseline="full",
        engine="packed",
        schedule_sha256="",
        window_seconds=[],
    )


@pytest.mark.parametrize(
    ("second", "holds"),
    [(2.0, True), (2.2, True), (2.24, True), (2.25, False), (1.783, True), (1.782, False)],
)
def test_a_second_value_may_differ_by_the_interval_and_the_noise_floor(
    intervals: ModuleType, second: float, holds: bool
) -> None:
    cell = intervals.cell(speed(2.0), speed(second, floor=1.5))
    assert cell["holds"] is holds
    assert cell["widened"] == pytest.approx((2 / 1.1 / 1.02, 2 * 1.1 * 1.02))
