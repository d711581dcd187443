"""Decoding of a recipe and of full fine-tuning: latency, throughput, memory and size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from harness import clock
from harness.errors import is_out_of_memory
from harness.evaluation.decoding import describe_search
from harness.measurement.decoding_process import DecodingProcess, DecodingWindow
from harness.measurement.decoding_work import (
    FrozenDecoding,
    Windows,
    choose_windows,
    sources_hash,
)
from harness.measurement.probe import NOT_TOGETHER, noise_floor
from harness.records.inference import (
    DecodingMemory,
    Inference,
    Latency,
    ModelSize,
    Throughput,
    Timing,
)
from harness.records.reasons import explain_nulls
from harness.spec.run_spec import RunSpec
from harness.statistics.intervals import geometric_mean_interval

LEAST_TIMINGS = 20
"""Fewest timed examples that have a 95th percentile."""
_RELATIVE = ("relative", "relative_ci", "noise_floor")

OnProgress = Callable[[], None]


def measure_inference(
    spec: RunSpec,
    work: FrozenDecoding,
    baseline_spec: RunSpec | None,
    budget: float,
    on_progress: OnProgress,
) -> Inference:
    """Measure a recipe beside its baseline, if there is one, each in a process of its own.

    If the two do not fit into memory together, the recipe is measured alone.

    Args:
        spec: the spec of the recipe.
        work: the sources to decode.
        baseline_spec: the spec of full fine-tuning; None measures the recipe alone.
        budget: seconds that the measurement may take, with the start of its processes. It takes
            longer if its least size does.
        on_progress: is called after every window.
    """
    began = clock.seconds()
    try:
        return _measure(spec, work, baseline_spec, began + budget, on_progress)
    except Exception as error:
        if baseline_spec is None or not is_out_of_memory(error):
            raise
    inference = _measure(spec, work, None, began + budget, on_progress)
    without_baseline(inference, NOT_TOGETHER)
    return inference


def _measure(
    spec: RunSpec,
    work: FrozenDecoding,
    baseline_spec: RunSpec | None,
    deadline: float,
    on_progress: OnProgress,
) -> Inference:
    with ExitStack() as stack:
        began = clock.seconds()
        baseline = None
        process = stack.enter_context(DecodingProcess(spec, work))
        if baseline_spec is not None:
            baseline = stack.enter_context(DecodingProcess(baseline_spec, work))
            baseline.wait()
        process.wait()
        inference = measure_inference_of(
            process, baseline, work, deadline, spec.probe.rounds, on_progress
        )
        inference.seconds = clock.seconds() - began
        return inference


@dataclass
class _Times:
    """Windows of a process, in their order."""

    windows: list[DecodingWindow] = field(default_factory=list)

    @property
    def latencies(self) -> list[float]:
        return [sum(window.latencies) for window in self.windows]

    @property
    def prefills(self) -> list[float]:
        return [sum(window.prefills) for window in self.windows]

    @property
    def later_tokens(self) -> list[float]:
        pairs = zip(self.latencies, self.prefills, strict=True)
        return [latency - prefill for latency, prefill in pairs]

    @property
    def batches(self) -> list[float]:
        return [window.batch for window in self.windows if window.batch is not None]


def measure_inference_of(
    process: DecodingProcess,
    baseline: DecodingProcess | None,
    work: FrozenDecoding,
    deadline: float,
    most_rounds: int,
    on_progress: OnProgress,
) -> Inference:
    """Time a process in windows interleaved A B B A with those of its baseline.

    Every window of a measurement decodes the same sources; memory is measured after the last one.

    Args:
        process: the process of the recipe.
        baseline: the process of full fine-tuning, or None.
        work: the sources to decode.
        deadline: time of ``clock.seconds`` at which the measurement should have ended.
        most_rounds: largest number of rounds.
        on_progress: is called after every window.
    """
    began = clock.seconds()
    order = [process, process] if baseline is None else [baseline, process, process, baseline]
    warm = {id(each): _warm_up(each) for each in ([baseline] if baseline else []) + [process]}
    costs = [warm[id(each)] for each in order]
    example = sum(window.latencies[0] + window.prefills[0] for window in costs)
    batch = sum(window.batch or 0 for window in costs)
    # Memory takes another batch of each process, which the order names twice.
    chosen = choose_windows(
        deadline - clock.seconds() - batch / 2,
        example,
        batch,
        most_rounds,
        len(work.sources),
    )
    own, full = _Times(), _Times()
    for _ in range(chosen.rounds):
        for timed in order:
            window = timed.window(chosen.examples, batch=chosen.batch)
            (own if timed is process else full).windows.append(window)
            on_progress()
    inference = _record(process, work, chosen, own, full if baseline else None)
    if baseline is None:
        without_baseline(inference, "off")
    else:
        inference.baseline = f"{baseline.recipe} on the same sources, interleaved"
        _compare_sizes(inference, process, baseline)
    inference.seconds = clock.seconds() - began
    return inference


def _warm_up(process: DecodingProcess) -> DecodingWindow:
    """Repeat an example until it is less than 5 % faster than before; then time it with a batch."""
    before = process.window(1, batch=False).latencies[0]
    for _ in range(3):
        seconds = process.window(1, batch=False).latencies[0]
        if seconds > 0.95 * before:
            break
        before = seconds
    return process.window(1, batch=True)


def _record(
    process: DecodingProcess,
    work: FrozenDecoding,
    chosen: Windows,
    own: _Times,
    full: _Times | None,
) -> Inference:
    settings, examples = work.settings, chosen.examples
    sources = work.sources[:examples]
    tokens = settings.max_new_tokens
    inference = Inference(
        search="|".join(describe_search(settings)),
        beams=settings.beams,
        output_tokens=tokens,
        source_tokens=statistics.fmean(map(len, sources)),
        sources_sha256=sources_hash(work.sources, work.batch, work.longest),
        examples=examples,
        rounds=chosen.rounds,
        baseline="",
        latency=_latency(own, full, examples),
        prefill=_timing(own.prefills, full.prefills if full else None, examples),
        memory=_memory(process),
        size=ModelSize(model_bytes=process.sizes.model, trained_bytes=process.sizes.trained),
        seconds=0,
    )
    later = own.later_tokens, full.later_tokens if full else None
    if tokens == 1:
        explain_nulls(inference, "every example generates one token", "per_token")
    elif min([*later[0], *(later[1] or [])]) <= 0:
        explain_nulls(inference, "the windows were too short to tell", "per_token")
    else:
        inference.per_token = _timing(*later, examples * (tokens - 1))
    if chosen.batch:
        inference.throughput = _throughput(own, full, len(work.batch), tokens)
    else:
        explain_nulls(inference, "a batch would have taken too long", "throughput")
    return inference


def _timing(own: Sequence[float], full: Sequence[float] | None, units: int) -> Timing:
    """Return the time of one of the equal units of a window."""
    timing = Timing(seconds=statistics.fmean(own) / units)
    if full is not None:
        ratios = [baseline / seconds for baseline, seconds in zip(full, own, strict=True)]
        interval = geometric_mean_interval(ratios)
        timing.relative = interval.value
        timing.relative_ci = (interval.low, interval.high)
        timing.noise_floor = noise_floor(full)
    return timing


def _latency(own: _Times, full: _Times | None, examples: int) -> Latency:
    timed = [seconds for window in own.windows for seconds in window.latencies]
    timing = _timing(own.latencies, full.latencies if full else None, examples)
    latency = Latency(**timing.model_dump(), median_seconds=statistics.median(timed))
    if len(timed) >= LEAST_TIMINGS:
        latency.p95_seconds = float(np.quantile(timed, 0.95))
    reason = f"{len(timed)} timed examples are fewer than {LEAST_TIMINGS}"
    explain_nulls(latency, reason, "p95_seconds")
    return latency


def _throughput(own: _Times, full: _Times | None, size: int, tokens: int) -> Throughput:
    timing = _timing(own.batches, full.batches if full else None, 1)
    rate = size / timing.seconds
    return Throughput(
        **timing.model_dump(),
        batch_size=size,
        examples_per_s=rate,
        output_tokens_per_s=rate * tokens,
    )


def _memory(process: DecodingProcess) -> DecodingMemory:
    static, peak = process.memory()
    return DecodingMemory(peak_bytes=peak, static_bytes=static)


def _compare_sizes(
    inference: Inference, process: DecodingProcess, baseline: DecodingProcess
) -> None:
    memory, size = inference.memory, inference.size
    memory.relative = memory.peak_bytes / _memory(baseline).peak_bytes
    size.model_relative = process.sizes.model / baseline.sizes.model
    size.trained_relative = process.sizes.trained / baseline.sizes.trained


def without_baseline(inference: Inference, why: str) -> None:
    """Record the reason why there is no baseline to compare with."""
    reason = f"no baseline: {why}"
    inference.baseline = why
    timings = (inference.latency, inference.prefill, inference.per_token, inference.throughput)
    for timing in timings:
        if timing is not None:
            explain_nulls(timing, reason, *_RELATIVE)
    explain_nulls(inference.memory, reason, "relative")
    explain_nulls(inference.size, reason, "model_relative", "trained_relative")
