"""The probe against known sleeps, known allocations and formulas; nothing is mocked."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.examples import Example
from harness.measurement.probe import freeze, noise_floor, probe_memory, probe_speed
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import ProbeSettings
from harness.statistics.intervals import geometric_mean_interval
from harness.training.schedule import Schedule, schedule_hash

MakeSpec = Callable[..., RunSpec]
MIB = 2**20
TOKENS, EXAMPLES = 40, 4
"""Tokens and examples of a step of the fixture ``schedule``."""


@pytest.mark.usefixtures("known_costs")
def test_known_sleeps_read_as_the_right_speed_and_ratio(
    make_spec: MakeSpec, schedule: Schedule
) -> None:
    slow, fast = make_spec("costly:seconds=0.8"), make_spec("costly:seconds=0.4")
    frozen = freeze(schedule, slow.probe)
    ticks: list[None] = []

    speed = probe_speed(slow, frozen, fast, lambda: ticks.append(None))
    assert speed.tokens_per_s == pytest.approx(TOKENS / 0.8)
    assert speed.samples_per_s == pytest.approx(EXAMPLES / 0.8)
    assert speed.relative == pytest.approx(0.5)
    assert speed.relative_ci == pytest.approx((0.5, 0.5))
    assert speed.noise_floor == pytest.approx(1)
    assert "costly:seconds=0.4" in speed.baseline
    assert speed.schedule_sha256 == schedule_hash(frozen.steps)
    assert len(speed.window_seconds) == 4
    assert len(ticks) == 8


@pytest.mark.usefixtures("known_costs")
def test_windows_of_twice_the_steps_give_the_same_speed(
    make_spec: MakeSpec, schedule: Schedule
) -> None:
    def speed_of(steps: int) -> float:
        spec = make_spec("costly:seconds=0.6", steps=steps)
        frozen = freeze(schedule, spec.probe)
        assert len(frozen.steps) == 1 + 2 * steps
        return probe_speed(spec, frozen, None, lambda: None).tokens_per_s

    assert speed_of(1) == pytest.approx(TOKENS / 0.6)
    assert speed_of(2) == pytest.approx(TOKENS / 0.6)


A_AND_A = "costly:seconds=0.2,jitter=0.1,seed={}"


@pytest.mark.usefixtures("known_costs")
def test_the_interval_of_equal_recipes_covers_1(make_spec: MakeSpec, schedule: Schedule) -> None:
    """Equal costs under two seeds: the seconds of each window are known."""
    recipe, baseline = (make_spec(A_AND_A.format(seed), rounds=6) for seed in (0, 1))
    frozen = freeze(schedule, recipe.probe)
    speed = probe_speed(recipe, frozen, baseline, lambda: None)
    tokens = [step.micro_batches[0][0].source[0] for step in frozen.steps[1:]]
    assert len(set(tokens)) == 6  # Each step is then run by two windows, and by no warm-up.
    recipe_seconds, baseline_seconds = known_windows(0, tokens), known_windows(1, tokens)
    interval = geometric_mean_interval(
        [b / a for a, b in zip(recipe_seconds, baseline_seconds, strict=True)]
    )
    assert speed.relative_ci
    low, high = speed.relative_ci
    assert low <= 1 <= high
    expected = (interval.value, interval.low, interval.high)
    assert (speed.relative, low, high) == pytest.approx(expected)
    assert speed.noise_floor == pytest.approx(noise_floor(baseline_seconds))


@pytest.mark.usefixtures("known_costs")
def test_the_interval_of_equal_recipes_covers_1_at_its_nominal_rate() -> None:
    """The intervals of the test above, for many pairs of seeds and without sleeping."""
    covered = 0
    for pair in range(400):
        recipe_seconds, baseline_seconds = (
            known_windows(2 * pair + which, range(6)) for which in (0, 1)
        )
        interval = geometric_mean_interval(
            [b / a for a, b in zip(recipe_seconds, baseline_seconds, strict=True)]
        )
        covered += interval.low <= 1 <= interval.high
    # Four standard errors of a share of 95 % in 400.
    assert covered / 400 == pytest.approx(0.95, abs=0.044)


def known_windows(seed: int, tokens: Any) -> list[float]:
    """Return the seconds of windows of one step; the two windows of a round run the same step."""
    costs = importlib.import_module("known_costs").Costs(seconds=0.2, jitter=0.1, seed=seed)
    return [costs.slept(token, visit) for token in tokens for visit in (1, 2)]


@pytest.mark.usefixtures("known_costs", "any_processes")
def test_a_known_allocation_reads_as_the_right_peak(
    make_spec: MakeSpec, schedule: Schedule
) -> None:
    large, plain = make_spec("costly:mebibytes=384"), make_spec("costly")
    memory = probe_memory(large, freeze(schedule, large.probe), plain)
    assert memory.relative
    baseline_bytes = memory.peak_bytes / memory.relative
    assert memory.peak_bytes - baseline_bytes == pytest.approx(384 * MIB, rel=0.05)
    assert memory.tensor_bytes == pytest.approx(384 * MIB, rel=0.05)
    assert memory.static_bytes < memory.peak_bytes - 300 * MIB


def test_the_frozen_steps_are_the_first_of_the_run(schedule: Schedule) -> None:
    settings = ProbeSettings(warmup_steps=3, steps=2, rounds=4)
    frozen = freeze(schedule, settings)
    assert (frozen.warmup, frozen.window) == (3, 2)
    assert list(frozen.steps) == list(schedule.steps(0, 11))


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_the_longest_step_holds_the_longest_examples(
    lengths: list[tuple[int, int]], batch_size: int, accumulation: int
) -> None:
    examples = [Example([5] * source, [6] * target) for source, target in lengths]
    schedule = Schedule(examples, batch_size, accumulation, seed=0)
    longest = freeze(schedule, ProbeSettings()).longest
    sizes = sorted((s + t for s, t in lengths), reverse=True)[: batch_size * accumulation]
    chosen = [len(e.source) + len(e.target) for batch in longest.micro_batches for e in batch]
    assert chosen == sizes
    assert all(len(batch) <= batch_size for batch in longest.micro_batches)


@given(st.floats(1e-3, 1e3), st.floats(1, 10), st.integers(1, 5))
def test_the_noise_floor_is_the_mean_distance_of_equal_work(
    seconds: float, ratio: float, pairs: int
) -> None:
    assert noise_floor([seconds] * 2 * pairs) == 1
    # The order of the two does not matter; distances are averaged as logarithms.
    assert noise_floor([seconds, seconds * ratio] * pairs) == pytest.approx(ratio)
    windows = [seconds * ratio, seconds, seconds, seconds]
    assert noise_floor(windows) == pytest.approx(math.sqrt(ratio))
