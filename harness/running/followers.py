"""The part of a run that every process but the first takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from torch import Tensor

from harness.api.plugins import Plugins
from harness.costs.fit import resolve_checkpointing
from harness.measurement.probe import freeze
from harness.running.inputs import read_inputs
from harness.spec.run_spec import RunSpec
from harness.training.engines.padded import Batch
from harness.training.processes import Processes
from harness.training.schedule import Schedule, Step, prefetch
from harness.training.trainer import Trainer, load_trainer


def run_worker(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    """Take a share of the training's steps; sleep while the first process does all the rest.

    Nothing is written or shown. An error is told to the first process, which reports it.
    """
    # Without the first process, or told to end: there is nothing left to take part in.
    with suppress(RuntimeError, KeyboardInterrupt):
        _follow(spec, plugins, processes)


def _follow(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    first = processes.receive_step()
    if first < 0:
        return
    trouble: Exception | None = None
    try:
        # Only now: the first process has measured undisturbed until here.
        trainer, schedule = _get_ready(spec, plugins)
    except Exception as error:
        trouble = error
    try:
        processes.raise_if_any_failed(trouble)
        left = schedule.planned_steps(spec.train.epochs, spec.train.max_steps) - first
        steps = prefetch(schedule.steps(first, left), trainer.engine.collate, processes.share)
        processes.run_worker(spec.seed, trainer.trained.values(), _backwards(trainer, steps))
    except Exception:
        # The first process knows of it and says it; then it lets this one go.
        processes.receive_step()


def _get_ready(spec: RunSpec, plugins: Plugins) -> tuple[Trainer, Schedule]:
    inputs = read_inputs(spec, plugins)
    settings = spec.train
    schedule = Schedule(
        inputs.train.examples, settings.batch_size, settings.accumulation, spec.seed
    )
    longest = freeze(schedule, spec.probe).longest
    spec = resolve_checkpointing(spec, inputs.backbone, inputs.recipe, longest)
    trainer = load_trainer(inputs.backbone, inputs.recipe, spec)
    trainer.model.train()
    return trainer, schedule


def _backwards(
    trainer: Trainer, steps: Iterator[tuple[Step, list[Batch]]]
) -> Iterator[Callable[[], Tensor]]:
    for step, batches in steps:
        yield partial(trainer.backward, batches, step.target_tokens)
