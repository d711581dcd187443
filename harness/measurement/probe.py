"""Short probe of a run: speed and memory of the recipe, compared with full fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.data.calibration import CalibrationData
from harness.data.examples import longest_examples
from harness.errors import first_line, is_out_of_memory
from harness.measurement.process import MeasuredProcess
from harness.model.flops import flop_limit
from harness.records.measurements import Memory, Speed
from harness.records.reasons import explain_nulls
from harness.spec.run_spec import BASELINE, RunSpec
from harness.spec.setting_groups import ProbeSettings
from harness.statistics.intervals import geometric_mean_interval
from harness.training.engines.shapes import BatchSize
from harness.training.schedule import SAMPLED_STEPS, Schedule, Step, schedule_hash, step_sizes
from harness.training.teacher_model import teacher_skeleton

OnProgress = Callable[[], None]

NO_BASELINE = f"{BASELINE} ran out of memory"
NOT_TOGETHER = f"{BASELINE} and this recipe do not fit into memory together"
"""Reasons why a recipe was measured without its baseline."""


@dataclass(frozen=True)
class FrozenSchedule:
    """Steps that every measured process of a probe takes.

    Attributes:
        warmup: steps before the clock starts.
        window: steps in a timed window.
        rounds: rounds of windows.
        steps: the warm-up, then one window's steps for each round.
        longest: the examples with the most tokens, as one optimizer step.
        calibration: the examples that compressors may look at.
        total_steps: optimizer steps of the whole training; None if there is none.
        sizes: sizes of the batches of the whole training, or of its first ones.
    """

    warmup: int
    window: int
    rounds: int
    steps: Sequence[Step]
    longest: Step
    calibration: CalibrationData
    total_steps: int | None = None
    sizes: Sequence[BatchSize] = ()

    @property
    def mean_source_tokens(self) -> float:
        """Tokens of a source, on average over the steps."""
        return sum(s.source_tokens for s in self.steps) / sum(s.examples for s in self.steps)

    @property
    def mean_target_tokens(self) -> float:
        """Tokens of a target, on average over the steps."""
        return sum(s.target_tokens for s in self.steps) / sum(s.examples for s in self.steps)


def freeze(schedule: Schedule, settings: ProbeSettings, synthetic: bool = False) -> FrozenSchedule:
    """Take a probe's steps from the start of a run's own schedule.

    Args:
        schedule: the order of the training examples.
        settings: numbers of steps.
        synthetic: whether the tokens of the examples are random.
    """
    count = settings.warmup_steps + settings.rounds * settings.steps
    return FrozenSchedule(
        settings.warmup_steps,
        settings.steps,
        settings.rounds,
        list(schedule.steps(0, count)),
        longest_step(schedule),
        CalibrationData.sample(schedule.examples, schedule.seed, synthetic),
        sizes=list(step_sizes(schedule.steps(0, max(count, SAMPLED_STEPS)))),
    )


def longest_step(schedule: Schedule) -> Step:
    """Return the examples with the most tokens as one optimizer step."""
    size = schedule.batch_size
    chosen = longest_examples(schedule.examples, schedule.step_size)
    return Step(tuple(tuple(chosen[start : start + size]) for start in range(0, len(chosen), size)))


def probe_speed(
    spec: RunSpec, frozen: FrozenSchedule, baseline_spec: RunSpec | None, on_progress: OnProgress
) -> Speed:
    """Time a recipe beside its baseline, if there is one, each in a process of its own.

    Each process keeps its memory while the other one is timed. If the two do not fit into memory
    together, the recipe is timed alone.

    Args:
        spec: the spec of the recipe.
        frozen: the steps to time.
        baseline_spec: the spec of full fine-tuning; None measures the recipe alone.
        on_progress: is called after every window.
    """
    try:
        return _time(spec, frozen, baseline_spec, on_progress)
    except Exception as error:
        if baseline_spec is None or not is_out_of_memory(error):
            raise
    speed = _time(spec, frozen, None, on_progress)
    without_baseline(speed, NOT_TOGETHER)
    return speed


def measured_process(spec: RunSpec, frozen: FrozenSchedule) -> MeasuredProcess:
    """Start a process that trains a spec's recipe on a frozen schedule."""
    return MeasuredProcess(
        spec,
        frozen.steps,
        frozen.longest,
        frozen.calibration,
        frozen.total_steps,
        frozen.sizes,
    )


def _time(
    spec: RunSpec, frozen: FrozenSchedule, baseline_spec: RunSpec | None, on_progress: OnProgress
) -> Speed:
    with ExitStack() as stack:
        process = stack.enter_context(measured_process(spec, frozen))
        baseline = None
        if baseline_spec is not None:
            baseline = stack.enter_context(measured_process(baseline_spec, frozen))
            warm_up(baseline, frozen)
        return measure_speed_of(process, baseline, frozen, on_progress)


def measure_speed_of(
    process: MeasuredProcess,
    baseline: MeasuredProcess | None,
    frozen: FrozenSchedule,
    on_progress: OnProgress,
) -> Speed:
    """Time a process in windows interleaved A B B A with those of a warm baseline.

    Every round times the same steps four times, so that each ratio compares equal work, and a
    machine that slows down or speeds up while it is measured favours neither side.
    """
    extra_seconds = warm_up(process, frozen)
    process.start_meter()
    recipe_seconds: list[float] = []
    baseline_seconds: list[float] = []
    for index in range(frozen.rounds):
        order = [process, process] if baseline is None else [baseline, process, process, baseline]
        for timed_process in order:
            seconds = timed_process.window(frozen.warmup + index * frozen.window, frozen.window)
            (recipe_seconds if timed_process is process else baseline_seconds).append(seconds)
            on_progress()
    timed = frozen.steps[frozen.warmup :]
    tokens = 2 * sum(step.source_tokens + step.target_tokens for step in timed)
    samples = 2 * sum(step.examples for step in timed)
    speed = Speed(
        tokens_per_s=tokens / sum(recipe_seconds),
        samples_per_s=samples / sum(recipe_seconds),
        baseline="",
        engine=process.engine,
        schedule_sha256=schedule_hash(frozen.steps),
        window_seconds=recipe_seconds,
        warmup_extra_seconds=extra_seconds,
        energy=process.energy(tokens),
    )
    if baseline is None:
        without_baseline(speed, "off")
    else:
        ratios = [full / own for full, own in zip(baseline_seconds, recipe_seconds, strict=True)]
        interval = geometric_mean_interval(ratios)
        speed.relative = interval.value
        speed.relative_ci = (interval.low, interval.high)
        speed.noise_floor = noise_floor(baseline_seconds)
        speed.baseline = f"{baseline.recipe} on the same batches, interleaved"
    speed.parts = process.time_parts(frozen.warmup, frozen.window)
    explain_nulls(speed, "a step is one CUDA graph", "parts")
    return speed


def without_baseline(measured: Speed | Memory, why: str) -> None:
    """Record the reason why there is no baseline to compare with."""
    reason = f"no baseline: {why}"
    explain_nulls(measured, reason, "relative")
    if isinstance(measured, Speed):
        measured.baseline = why
        explain_nulls(measured, reason, "relative_ci", "noise_floor")


def warm_up(process: MeasuredProcess, frozen: FrozenSchedule) -> float:
    """Repeat the first steps until a repetition is less than 5 % faster than the one before.

    The first steps allocate memory, choose kernels and may compile. The warm-up ends after five
    repetitions at the latest.

    Returns:
        Seconds of all repetitions beyond those of as many repetitions of the fastest one.
    """
    seconds = [process.window(0, frozen.warmup)]
    for _ in range(5):
        seconds.append(process.window(0, frozen.warmup))
        if seconds[-1] > 0.95 * seconds[-2]:
            break
    return sum(seconds) - len(seconds) * min(seconds)


def noise_floor(windows: Sequence[float]) -> float:
    """Return the mean ratio, at least 1, between times of equal work on equal code.

    Args:
        windows: seconds of the baseline's windows; consecutive pairs timed the same steps.
    """
    pairs = zip(windows[::2], windows[1::2], strict=True)
    distances = [abs(math.log(first / second)) for first, second in pairs]
    return math.exp(sum(distances) / len(distances))


def probe_memory(spec: RunSpec, frozen: FrozenSchedule, baseline_spec: RunSpec | None) -> Memory:
    """Measure the peak memory of a recipe and of its baseline, one process after the other."""
    memory = measure_memory_of(spec, frozen)
    if baseline_spec is None:
        without_baseline(memory, "off")
        return memory
    try:
        memory.relative = memory.peak_bytes / measure_memory_of(baseline_spec, frozen).peak_bytes
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        without_baseline(memory, NO_BASELINE)
    return memory


def measure_memory_of(spec: RunSpec, frozen: FrozenSchedule) -> Memory:
    """Measure the peak memory of a recipe in a process of its own."""
    with measured_process(spec, frozen) as process:
        return memory_within(process, spec)


def memory_within(process: MeasuredProcess, spec: RunSpec) -> Memory:
    """Measure the peak memory of a process, and what its tensors are for."""
    memory = process.memory(spec.probe.memory_steps)
    memory.parts = process.memory_parts()
    return memory


def add_flop_limit(
    speed: Speed, backbone: Backbone, recipe: Recipe, frozen: FrozenSchedule, seed: int
) -> None:
    """Record the FLOP limit of a recipe's relative speed, and the share of it that was reached.

    Args:
        speed: the measured speed, which gets the limit and the share.
        backbone: the backbone.
        recipe: the recipe that was timed.
        frozen: the steps that were timed.
        seed: the run's seed.
    """
    lengths = round(frozen.mean_source_tokens), round(frozen.mean_target_tokens)
    try:
        speed.flop_limit_relative = flop_limit(
            backbone, recipe, *lengths, seed, teacher_skeleton(recipe)
        )
    except RuntimeError as error:  # A compressor may need real weights.
        reason = f"the recipe cannot be traced by shapes: {first_line(error)}"
        explain_nulls(speed, reason, "flop_limit_relative", "share_of_limit")
        return
    if speed.relative is None:
        explain_nulls(speed, speed.not_measured["relative"], "share_of_limit")
    else:
        speed.share_of_limit = speed.relative / speed.flop_limit_relative
