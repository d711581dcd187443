"""The budget over several starts, and what fits into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import clock
from harness.clock import ManualClock
from harness.searching.budget import Budget
from harness.searching.estimate import Finals, Seconds
from harness.searching.rungs import SHARES

SECONDS = Seconds(start=10, training=100, test=50, profile=20, slots=1)


def test_the_time_of_earlier_starts_counts(tmp_path: Path, manual_clock: ManualClock) -> None:
    first = Budget(tmp_path, 100)
    clock.use(manual_clock)
    manual_clock.sleep(30)
    first.save()
    manual_clock.sleep(5)  # Killed here: what was not saved is lost.
    second = Budget(tmp_path, 100)
    assert (second.spent, second.left) == (30, 70)
    manual_clock.sleep(4)
    second.save_if_due()
    assert Budget(tmp_path, 100).spent == 30
    manual_clock.sleep(4)
    second.save_if_due()
    assert Budget(tmp_path, 100).spent == 38
    assert Budget(tmp_path, 20).left == -18


def test_a_round_counts_each_start_and_each_step_once() -> None:
    # 8 train a quarter, 4 another quarter, 2 the other half: 8/4 + 4/4 + 2/2 trainings.
    assert SECONDS.round(8, SHARES) == pytest.approx(1.15 * (4 * 100 + 14 * 10))


def test_runs_at_once_share_the_time() -> None:
    two = Seconds(10, 100, 50, 20, slots=2)
    assert two.round(8, SHARES) == SECONDS.round(8, SHARES) / 2
    assert two.seed(Finals(3, 1)) == SECONDS.seed(Finals(3, 1)) / 2


def test_the_largest_round_that_fits_is_taken() -> None:
    for count in range(2, 9):
        needed = SECONDS.round(count, SHARES)
        assert SECONDS.affordable_round(8, SHARES, needed) == count
    assert SECONDS.affordable_round(8, SHARES, SECONDS.round(2, SHARES) - 1) == 0


def test_finals_shrink_to_half_of_the_budget() -> None:
    wanted = Finals(3, 3)
    whole = SECONDS.finals(wanted)
    assert SECONDS.affordable_finals(wanted, 2 * whole) == wanted
    budgets = range(100, 6000, 50)
    sizes = [SECONDS.affordable_finals(wanted, budget) for budget in budgets]
    assert sizes[0] == Finals(1, 2)
    assert sizes[-1] == wanted
    for size, budget in zip(sizes, budgets, strict=True):
        assert SECONDS.finals(size) <= 0.5 * budget or size == Finals(1, 2)
    assert sizes == sorted(sizes, key=SECONDS.finals)
    assert SECONDS.affordable_finals(Finals(2, 1), 1) == Finals(1, 1)


def test_a_slow_round_makes_all_estimates_longer() -> None:
    estimated = SECONDS.round(4, SHARES)
    slow = SECONDS.corrected(estimated, 2 * estimated)
    assert slow == Seconds(start=20, training=200, test=100, profile=40, slots=1)
    assert slow.finals(Finals(2, 2)) == pytest.approx(2 * SECONDS.finals(Finals(2, 2)))
    assert SECONDS.corrected(estimated, estimated / 2) == SECONDS
    assert SECONDS.corrected(0, 1) == SECONDS
