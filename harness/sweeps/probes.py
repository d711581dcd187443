"""Short probes of recipes, and the time of a whole run that they predict."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from harness import clock
from harness.data.calibration import CalibrationData
from harness.data.column_values import column_values
from harness.data.tokenizing import tokenize
from harness.measurement.decoding_work import run_budget
from harness.measurement.probe import longest_step
from harness.measurement.process import MeasuredProcess
from harness.running.inputs import scored_counts
from harness.spec.decoding import DecodingSettings
from harness.spec.run_spec import RunSpec
from harness.sweeps.preview import CellPlan, empty_schedule
from harness.training.schedule import Schedule, Step

LIMIT_SECONDS = 60.0
"""Timeout of one probe, in seconds."""
_WINDOW_SECONDS = 1.0
_WINDOW_STEPS = 2
_CANDIDATES = 256
_DECODED = 4
_WARM_UPS = 3
"""Usual number of times that a run's own probe repeats its first steps; see ``probe.warm_up``."""

OnProgress = Callable[[str], None]


class ProbeBatches(NamedTuple):
    """Batches on which runs are probed and their memory is estimated."""

    steps: Sequence[Step]
    longest: Step


def batches_of(plan: CellPlan) -> ProbeBatches:
    """Return some steps of a run's training data, and the step with its longest examples.

    Only these examples are tokenized: a large split would take longer than the whole forecast.
    """
    spec, rows = plan.cell.spec, plan.splits.train
    size = spec.train.batch_size * spec.train.accumulation
    count = (1 + _WINDOW_STEPS) * size
    sampled = Random(spec.seed).sample(range(len(rows)), min(count, len(rows)))
    # The examples with the most tokens are among those with the most characters.
    texts = zip(column_values(rows, "source"), column_values(rows, "target"), strict=True)
    characters = np.fromiter((len(s) + len(t) for s, t in texts), np.int64, len(rows))
    candidates = max(_CANDIDATES, 4 * size)
    longest = np.argsort(-characters, kind="stable")[:candidates].tolist()

    def schedule(places: Sequence[int]) -> Schedule:
        examples = tokenize(rows.select(places), plan.backbone.tokenizer(), plan.task).examples
        return Schedule(examples, spec.train.batch_size, spec.train.accumulation, spec.seed)

    steps = list(schedule(sampled).steps(0, 1 + _WINDOW_STEPS))
    return ProbeBatches(steps, longest_step(schedule(longest)))


class Costs(NamedTuple):
    """Seconds measured by a short probe of a recipe."""

    start: float
    """Start of the process, until it is ready to train."""
    step: float
    """One optimizer step."""
    greedy: float
    """Prediction for one example of the eval split, during training."""
    test: float
    """Prediction for one example of the test split."""


class Probes:
    """Short probes of recipes, each made once.

    Args:
        deadline: time of the monotonic clock after which no probe is started.
        on_progress: is called with the name of each probe before it starts.
    """

    def __init__(self, deadline: float, on_progress: OnProgress) -> None:
        self._deadline = deadline
        self._on_progress = on_progress
        self._costs: dict[str, Costs] = {}

    def costs(self, spec: RunSpec, batches: ProbeBatches) -> Costs:
        """Return the costs of a spec's recipe.

        Raises:
            TimeoutError: it is too late to start another probe.
            Exception: the probe failed.
        """
        # Time does not depend on the weights' values, and random weights need no download.
        spec = spec.model_copy(update={"seed": 0, "weights": "random"})
        key = spec.digest()
        if key not in self._costs:
            if clock.seconds() > self._deadline:
                raise TimeoutError("the time for probes was over")
            self._on_progress(f"probing {spec.recipe} on {spec.backbone}")
            self._costs[key] = probe(spec, batches)
        return self._costs[key]


def probe(spec: RunSpec, batches: ProbeBatches) -> Costs:
    """Time a few steps and a few predictions of a recipe, in a process of its own."""
    examples = [e for step in batches.steps for batch in step.micro_batches for e in batch]
    sample = examples[:_DECODED]
    longest = max(len(example.target) for example in sample)

    def decode(settings: DecodingSettings) -> float:
        # Random weights never end a prediction; trained ones end it about where references do.
        limit = min(settings.max_new_tokens, longest)
        short = settings.model_copy(update={"max_new_tokens": limit})
        return process.decode([example.source for example in sample], short) / len(sample)

    began = clock.seconds()
    calibration = CalibrationData.sample(examples, spec.seed)
    with (
        MeasuredProcess(spec, batches.steps, batches.longest, calibration) as process,
        _limited(process),
    ):
        start = clock.seconds() - began
        process.window(0, 1)
        first = process.window(0, 1)
        count = max(1, min(len(batches.steps) - 1, int(_WINDOW_SECONDS / first)))
        step = process.window(1, count) / count
        return Costs(start, step, decode(spec.greedy), decode(spec.test))


@contextlib.contextmanager
def _limited(process: MeasuredProcess) -> Iterator[None]:
    timed_out = threading.Event()

    def end() -> None:
        timed_out.set()
        process.kill()

    limit = threading.Timer(LIMIT_SECONDS, end)
    limit.start()
    try:
        yield
    except Exception as error:
        if timed_out.is_set():
            raise TimeoutError(f"a probe took longer than {LIMIT_SECONDS:g} seconds") from error
        raise
    finally:
        limit.cancel()


def run_seconds(
    plan: CellPlan, spec: RunSpec, batches: ProbeBatches, costs: Costs, baseline: Costs | None
) -> float:
    """Return the seconds of a run: starts, its own probes, training to its last step, predictions.

    Args:
        plan: the cell's plan, with its numbers of steps and examples.
        spec: the cell's spec.
        batches: the batches that were probed.
        costs: the costs of the cell's recipe.
        baseline: the costs of full fine-tuning, if the run's own probe measures that as well.
    """
    settings = spec.probe
    mean = sum(s.source_tokens + s.target_tokens for s in batches.steps) / len(batches.steps)
    longest = (batches.longest.source_tokens + batches.longest.target_tokens) / mean
    # For speed, then for memory: one step before the window, and two more for the breakdown.
    speed_steps = _WARM_UPS * settings.warmup_steps + 2 * settings.rounds * settings.steps
    memory_steps = longest * (1 + settings.memory_steps + 2)
    probing = sum(
        2 * process.start + (speed_steps + memory_steps) * process.step
        for process in (costs, baseline)
        if process
    )
    schedule = empty_schedule(spec, len(plan.splits.train))
    interval = schedule.steps_between_evaluations(spec.train.eval_every_epochs)
    evaluations = math.ceil(plan.cell.steps / interval)
    greedy, test = scored_counts(spec, plan.task, plan.splits)
    training = plan.cell.steps * costs.step + evaluations * greedy * costs.greedy
    decoding = 0.0
    if settings.inference:
        decoding = run_budget(costs.start + probing, plan.cell.steps * costs.step)
    return costs.start + probing + decoding + training + test * costs.test
