"""The short probe of a run: speed and memory of the recipe, beside full fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.measurement.arm import Arm
from harness.measurement.memory import MemoryReading
from harness.reporting.report import Memory, Speed
from harness.spec import ProbeSettings, RunSpec
from harness.statistics import geometric_mean_interval
from harness.training.schedule import Schedule, Step, schedule_hash


@dataclass(frozen=True)
class FrozenSchedule:
    """The steps that every arm of a probe takes.

    Attributes:
        warmup: steps before the clock starts.
        window: steps in a timed window.
        steps: the warm-up, then one window's steps for each round.
        longest: the examples with the most tokens, as one optimizer step.
    """

    warmup: int
    window: int
    steps: Sequence[Step]
    longest: Step

    def block(self, round_index: int) -> Sequence[Step]:
        """Return the steps that are timed in a round."""
        start = self.warmup + round_index * self.window
        return self.steps[start : start + self.window]


def freeze(schedule: Schedule, settings: ProbeSettings) -> FrozenSchedule:
    """Take a probe's steps from the start of a run's own schedule."""
    count = settings.warmup_steps + settings.rounds * settings.steps
    by_length = sorted(schedule.examples, key=lambda e: len(e.source) + len(e.target), reverse=True)
    size = schedule.batch_size
    chosen = by_length[: schedule.step_size]
    longest = Step(
        tuple(tuple(chosen[start : start + size]) for start in range(0, len(chosen), size))
    )
    return FrozenSchedule(
        settings.warmup_steps, settings.steps, list(schedule.steps(0, count)), longest
    )


def probe_speed(
    spec: RunSpec, frozen: FrozenSchedule, baseline_spec: RunSpec | None, tick: Callable[[], None]
) -> Speed:
    """Time a recipe, in windows interleaved A B B A with those of its baseline.

    Every round times the same steps four times, so that each ratio compares equal work, and a
    machine that slows down or speeds up while it is measured favours neither side.

    Args:
        spec: the recipe's.
        frozen: the steps.
        baseline_spec: full fine-tuning's, or None to measure the recipe alone.
        tick: called after every window.
    """
    rounds = range(spec.probe.rounds)
    ours: list[float] = []
    theirs: list[float] = []
    with Arm(spec, frozen.steps, frozen.longest) as arm:
        if baseline_spec is None:
            arm.window(0, frozen.warmup)
            for index in rounds:
                ours += [_time(arm, frozen, index, tick) for _ in range(2)]
        else:
            with Arm(baseline_spec, frozen.steps, frozen.longest) as baseline:
                arm.window(0, frozen.warmup)
                baseline.window(0, frozen.warmup)
                for index in rounds:
                    first = _time(baseline, frozen, index, tick)
                    ours += [_time(arm, frozen, index, tick) for _ in range(2)]
                    theirs += [first, _time(baseline, frozen, index, tick)]
        engine = arm.engine
    timed = [step for index in rounds for step in frozen.block(index)]
    tokens = 2 * sum(step.source_tokens + step.target_tokens for step in timed)
    samples = 2 * sum(step.examples for step in timed)
    speed = Speed(
        tokens_per_s=tokens / sum(ours),
        samples_per_s=samples / sum(ours),
        baseline="off",
        engine=engine,
        schedule_sha256=schedule_hash(frozen.steps),
        window_seconds=ours,
    )
    if baseline_spec is not None:
        ratios = [full / mine for full, mine in zip(theirs, ours, strict=True)]
        interval = geometric_mean_interval(ratios)
        speed.relative = interval.value
        speed.relative_ci = (interval.low, interval.high)
        speed.noise_floor = noise_floor(theirs)
        speed.baseline = f"probe of {baseline_spec.recipe} on the same batches"
    return speed


def noise_floor(windows: Sequence[float]) -> float:
    """Return how far equal work on equal code was apart, as a ratio of at least 1.

    Args:
        windows: seconds of the baseline's windows; each two in a row timed the same steps.
    """
    pairs = zip(windows[::2], windows[1::2], strict=True)
    distances = [abs(math.log(first / second)) for first, second in pairs]
    return math.exp(sum(distances) / len(distances))


def _time(arm: Arm, frozen: FrozenSchedule, index: int, tick: Callable[[], None]) -> float:
    seconds = arm.window(frozen.warmup + index * frozen.window, frozen.window)
    tick()
    return seconds


def probe_memory(spec: RunSpec, frozen: FrozenSchedule, baseline_spec: RunSpec | None) -> Memory:
    """Measure the peak memory of a recipe and of its baseline, one process after the other."""
    reading = _reading(spec, frozen)
    memory = Memory(
        peak_bytes=reading.peak,
        static_bytes=reading.static,
        reserved_bytes=reading.reserved,
        tensor_bytes=reading.tensors,
    )
    if baseline_spec is not None:
        memory.relative = reading.peak / _reading(baseline_spec, frozen).peak
    return memory


def _reading(spec: RunSpec, frozen: FrozenSchedule) -> MemoryReading:
    with Arm(spec, frozen.steps, frozen.longest) as arm:
        return arm.memory(spec.probe.memory_steps)
