"""The part of a run that every process but the first takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from torch import Tensor

from harness.api.plugins import Plugins
from harness.costs.fit import settle_checkpointing
from harness.measurement.probe import freeze
from harness.running.inputs import read_inputs
from harness.spec.run_spec import RunSpec
from harness.training.engines.padded import Batch
from harness.training.processes import Processes
from harness.training.schedule import Schedule, Step, prefetch
from harness.training.trainer import Trainee, prepare


def follow(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    """Take a share of the training's steps; sleep while the first process does all the rest.

    Nothing is written or shown. An error is told to the first process, which reports it.
    """
    # Without the first process, or told to end: there is nothing left to take part in.
    with suppress(RuntimeError, KeyboardInterrupt):
        _follow(spec, plugins, processes)


def _follow(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    first = processes.hear()
    if first < 0:
        return
    trouble: Exception | None = None
    try:
        # Only now: the first process has measured undisturbed until here.
        trainee, schedule = _get_ready(spec, plugins)
    except Exception as error:
        trouble = error
    try:
        processes.agree(trouble)
        left = schedule.planned_steps(spec.train.epochs, spec.train.max_steps) - first
        steps = prefetch(schedule.steps(first, left), trainee.engine.collate, processes.share)
        processes.follow(spec.seed, trainee.trained.values(), _backwards(trainee, steps))
    except Exception:
        # The first process knows of it and says it; then it lets this one go.
        processes.hear()


def _get_ready(spec: RunSpec, plugins: Plugins) -> tuple[Trainee, Schedule]:
    inputs = read_inputs(spec, plugins)
    settings = spec.train
    schedule = Schedule(
        inputs.train.examples, settings.batch_size, settings.accumulation, spec.seed
    )
    longest = freeze(schedule, spec.probe).longest
    spec = settle_checkpointing(spec, inputs.backbone, inputs.recipe, longest)
    trainee = prepare(inputs.backbone, inputs.recipe, spec)
    trainee.model.train()
    return trainee, schedule


def _backwards(
    trainee: Trainee, steps: Iterator[tuple[Step, list[Batch]]]
) -> Iterator[Callable[[], Tensor]]:
    for step, batches in steps:
        yield partial(trainee.backward, batches, step.target_tokens)
