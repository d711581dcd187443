"""Short probes of recipes, and what a whole run takes by them."""

from __future__ import annotations

import contextlib
import heapq
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from harness import clock
from harness.data.examples import tokenize
from harness.measurement.probe import longest_step
from harness.measurement.process import MeasuredProcess
from harness.running.inputs import scored_counts
from harness.spec.decoding import DecodingSettings
from harness.spec.run_spec import RunSpec
from harness.sweeps.preview import CellPlan, counted
from harness.training.schedule import Schedule, Step

LIMIT_SECONDS = 60.0
"""Timeout of one probe, in seconds."""
_WINDOW_SECONDS = 1.0
_WINDOW_STEPS = 2
_CANDIDATES = 256
_DECODED = 4
_WARM_UPS = 3
"""How often a run's own probe repeats its first steps, as a rule; see ``probe.warm_up``."""

OnProgress = Callable[[str], None]


class ProbeBatches(NamedTuple):
    """Batches that runs are probed and their memory is estimated on."""

    steps: Sequence[Step]
    longest: Step


def batches_of(plan: CellPlan) -> ProbeBatches:
    """Return some steps of a run's training data, and the step with its longest examples.

    Only these are turned into tokens: a large split would take longer than all the rest.
    """
    spec, rows = plan.cell.spec, plan.splits.train
    size = spec.train.batch_size * spec.train.accumulation
    count = (1 + _WINDOW_STEPS) * size
    some = Random(spec.seed).sample(range(len(rows)), min(count, len(rows)))
    # Characters stand for tokens: the longest in these are among the longest in those.
    characters = [len(s) + len(t) for s, t in zip(rows["source"], rows["target"], strict=True)]
    candidates = max(_CANDIDATES, 4 * size)
    long = heapq.nlargest(candidates, range(len(rows)), key=characters.__getitem__)

    def schedule(places: Sequence[int]) -> Schedule:
        examples = tokenize(rows.select(places), plan.backbone.tokenizer(), plan.task).examples
        return Schedule(examples, spec.train.batch_size, spec.train.accumulation, spec.seed)

    steps = list(schedule(some).steps(0, 1 + _WINDOW_STEPS))
    return ProbeBatches(steps, longest_step(schedule(long)))


class Costs(NamedTuple):
    """Seconds that a short probe of a recipe found."""

    start: float
    """Until its process was ready to train."""
    step: float
    """An optimizer step."""
    greedy: float
    """Predicting an example during training."""
    test: float
    """Predicting an example of the test split."""


class Probes:
    """Short probes of recipes, each made once.

    Args:
        deadline: none is started after this moment of the monotonic clock.
        on_progress: called with what is probed next.
    """

    def __init__(self, deadline: float, on_progress: OnProgress) -> None:
        self._deadline = deadline
        self._on_progress = on_progress
        self._made: dict[str, Costs] = {}

    def costs(self, spec: RunSpec, batches: ProbeBatches) -> Costs:
        """Return the costs of a spec's recipe.

        Raises:
            TimeoutError: it is too late to start another probe.
            Exception: what the probe failed with.
        """
        # Time does not depend on the weights' values, and random ones are always at hand.
        spec = spec.model_copy(update={"seed": 0, "weights": "random"})
        key = spec.digest()
        if key not in self._made:
            if clock.seconds() > self._deadline:
                raise TimeoutError("the time for probes was over")
            self._on_progress(f"probing {spec.recipe} on {spec.backbone}")
            self._made[key] = probe(spec, batches)
        return self._made[key]


def probe(spec: RunSpec, batches: ProbeBatches) -> Costs:
    """Time a few steps and a few predictions of a recipe, in a process of its own."""
    sample = [e for step in batches.steps for batch in step.micro_batches for e in batch][:_DECODED]
    longest = max(len(example.target) for example in sample)

    def decode(settings: DecodingSettings) -> float:
        # Random weights never end a prediction; trained ones end it about where references do.
        limit = min(settings.max_new_tokens, longest)
        short = settings.model_copy(update={"max_new_tokens": limit})
        return process.decode([example.source for example in sample], short) / len(sample)

    began = clock.seconds()
    with MeasuredProcess(spec, batches.steps, batches.longest) as process, _limited(process):
        start = clock.seconds() - began
        process.window(0, 1)
        first = process.window(0, 1)
        count = max(1, min(len(batches.steps) - 1, int(_WINDOW_SECONDS / first)))
        step = process.window(1, count) / count
        return Costs(start, step, decode(spec.greedy), decode(spec.test))


@contextlib.contextmanager
def _limited(process: MeasuredProcess) -> Iterator[None]:
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    limit = threading.Timer(LIMIT_SECONDS, end)
    limit.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError(f"a probe took longer than {LIMIT_SECONDS:g} seconds") from error
        raise
    finally:
        limit.cancel()


def run_seconds(
    plan: CellPlan, spec: RunSpec, batches: ProbeBatches, costs: Costs, baseline: Costs | None
) -> float:
    """Add up what a run takes: starts, its own probe, training to its last step, predictions.

    Args:
        plan: says how many steps and examples there are.
        spec: the cell's.
        batches: those probed.
        costs: of its recipe.
        baseline: of full fine-tuning, if its own probe measures that as well.
    """
    settings = spec.probe
    mean = sum(s.source_tokens + s.target_tokens for s in batches.steps) / len(batches.steps)
    longest = (batches.longest.source_tokens + batches.longest.target_tokens) / mean
    # For speed, then for memory: one step before the window, two more to look into it.
    speed_steps = _WARM_UPS * settings.warmup_steps + 2 * settings.rounds * settings.steps
    memory_steps = longest * (1 + settings.memory_steps + 2)
    probing = sum(
        2 * process.start + (speed_steps + memory_steps) * process.step
        for process in (costs, baseline)
        if process
    )
    schedule = counted(spec, len(plan.splits.train))
    interval = schedule.steps_between_evaluations(spec.train.eval_every_epochs)
    evaluations = math.ceil(plan.cell.steps / interval)
    greedy, test = scored_counts(spec, plan.task, plan.splits)
    training = plan.cell.steps * costs.step + evaluations * greedy * costs.greedy
    return costs.start + probing + training + test * costs.test
