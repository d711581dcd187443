"""The probe against known sleeps, known allocations and closed forms; nothing is mocked."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measurement.probe import freeze, noise_floor, probe_memory, probe_speed
from harness.spec import ProbeSettings, RunSpec
from harness.training.examples import Example
from harness.training.schedule import Schedule, schedule_hash

MakeSpec = Callable[..., RunSpec]
MIB = 2**20
TOKENS, EXAMPLES = 40, 4
"""Of a step; see the schedule."""


@pytest.mark.usefixtures("known_costs")
def test_known_sleeps_read_as_the_right_speed_and_ratio(
    make_spec: MakeSpec, schedule: Schedule
) -> None:
    slow, fast = make_spec("costly:seconds=0.8"), make_spec("costly:seconds=0.4")
    frozen = freeze(schedule, slow.probe)
    # Whatever else runs on the machine can only add to a sleep: one quiet try of three will do.
    for _ in range(3):
        ticks: list[None] = []
        speed = probe_speed(slow, frozen, fast, lambda: ticks.append(None))  # noqa: B023
        if speed.tokens_per_s > 0.95 * TOKENS / 0.8:
            break
    assert speed.tokens_per_s == pytest.approx(TOKENS / 0.8, rel=0.05)
    assert speed.samples_per_s == pytest.approx(EXAMPLES / 0.8, rel=0.05)
    assert speed.relative == pytest.approx(0.5, rel=0.05)
    assert speed.relative_ci
    assert speed.relative_ci[0] <= speed.relative <= speed.relative_ci[1]
    assert speed.noise_floor
    assert 1 <= speed.noise_floor < 1.1
    assert "costly:seconds=0.4" in speed.baseline
    assert speed.schedule_sha256 == schedule_hash(frozen.steps)
    assert len(speed.window_seconds) == 4
    assert len(ticks) == 8


@pytest.mark.usefixtures("known_costs")
def test_a_known_allocation_reads_as_the_right_peak(
    make_spec: MakeSpec, schedule: Schedule
) -> None:
    large, plain = make_spec("costly:mebibytes=384"), make_spec("costly")
    memory = probe_memory(large, freeze(schedule, large.probe), plain)
    assert memory.relative
    theirs = memory.peak_bytes / memory.relative
    assert memory.peak_bytes - theirs == pytest.approx(384 * MIB, rel=0.05)
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
    made = Schedule(examples, batch_size, accumulation, seed=0)
    longest = freeze(made, ProbeSettings()).longest
    sizes = sorted((s + t for s, t in lengths), reverse=True)[: batch_size * accumulation]
    chosen = [len(e.source) + len(e.target) for batch in longest.micro_batches for e in batch]
    assert chosen == sizes
    assert all(len(batch) <= batch_size for batch in longest.micro_batches)


@given(st.floats(1e-3, 1e3), st.floats(1, 10), st.integers(1, 5))
def test_the_noise_floor_is_the_mean_distance_of_equal_work(
    seconds: float, ratio: float, pairs: int
) -> None:
    assert noise_floor([seconds] * 2 * pairs) == 1
    # Which of the two was slower does not matter; distances are averaged as logarithms.
    assert noise_floor([seconds, seconds * ratio] * pairs) == pytest.approx(ratio)
    windows = [seconds * ratio, seconds, seconds, seconds]
    assert noise_floor(windows) == pytest.approx(math.sqrt(ratio))
