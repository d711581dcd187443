"""Work of every process of a run except the first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from torch import Tensor

from harness.api.plugins import Plugins
from harness.running.inputs import read_inputs
from harness.running.setup import Setup, set_up
from harness.spec.run_spec import RunSpec
from harness.training.engines.padded import Batch
from harness.training.processes import Processes
from harness.training.schedule import Step, prefetch
from harness.training.trainer import Trainer, load_trainer


def run_worker(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    """Compute a share of each training step; sleep while the first process does the rest.

    A worker writes no files and prints nothing. It sends its errors to the first process, which
    reports them.

    Args:
        spec: the spec of the run, the same as in the first process.
        plugins: the plugins of this environment.
        processes: the group that this process joined.
    """
    # The first process has ended, or ends this one.
    with suppress(RuntimeError, KeyboardInterrupt):
        _work(spec, plugins, processes)


def _work(spec: RunSpec, plugins: Plugins, processes: Processes) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    first = processes.receive_step()
    if first < 0:
        return
    error: Exception | None = None
    try:
        # Not earlier: nothing may disturb the first process while it measures.
        setup = set_up(read_inputs(spec, plugins))
        trainer = load_trainer(setup.run)
        trainer.model.train()
    except Exception as raised:
        error = raised
    try:
        processes.raise_if_any_failed(error)
        batches = _batches(setup, trainer, processes, first)
        processes.run_worker(spec.seed, trainer.trained.values(), _backwards(trainer, batches))
    except Exception:
        # The first process has the error and reports it; then it ends this process.
        processes.receive_step()


def _batches(
    setup: Setup, trainer: Trainer, processes: Processes, first: int
) -> Iterator[tuple[Step, list[Batch]]]:
    """Yield this process's share of the steps from ``first`` on."""
    steps = setup.schedule.steps(first, setup.planned_steps - first)
    return prefetch(steps, trainer.engine.collate, processes.share)


def _backwards(
    trainer: Trainer, steps: Iterator[tuple[Step, list[Batch]]]
) -> Iterator[Callable[[], Tensor]]:
    for step, batches in steps:
        yield partial(trainer.backward, batches, step.target_tokens)
