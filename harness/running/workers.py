"""Work of every process of a run except the first."""

from __future__ import annotations

import logging

from harness.api.plugins import Plugins
from harness.running.inputs import read_inputs
from harness.running.process_costs import process_costs
from harness.running.setup import Setup, set_up
from harness.running.shared_predictions import predict_eval_split, predict_test_split
from harness.running.stored_outputs import with_stored_outputs
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.engine_check import check_engine
from harness.training.follower import follow
from harness.training.processes import (
    FINISHED,
    MEASURE,
    PREDICT,
    TRAIN,
    TRAIN_SHARDED,
    Processes,
)
from harness.training.trainer import Trainer


def run_worker(
    spec: RunSpec, plugins: Plugins, processes: Processes, micro_batch: int | None = None
) -> None:
    """Take part in training and predictions; wait while the first process does the rest.

    A worker writes no files and prints nothing. It leaves its error to the first process, which
    reports it.

    Args:
        spec: the spec of the run, the same as in the first process.
        plugins: the plugins of this environment.
        processes: the group that this process joined.
        micro_batch: see ``harness.running.run.Run``; the same as in the first process.
    """
    try:
        _work(spec, plugins, processes, micro_batch)
    except (Exception, KeyboardInterrupt) as error:
        processes.fail(error)


def _work(spec: RunSpec, plugins: Plugins, processes: Processes, micro_batch: int | None) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    setup: Setup | None = None
    trainer: Trainer | None = None
    while (stage := processes.await_stage()) != FINISHED:
        # Not earlier: nothing may disturb the first process while it measures.
        setup = setup or set_up(read_inputs(spec, plugins), micro_batch)
        if stage == MEASURE:
            process_costs(setup, plugins, processes, on_ready=processes.ready)
            continue
        if trainer is None and stage != TRAIN_SHARDED:
            setup = with_stored_outputs(setup).setup
            trainer = load_trainer(setup.run)
        processes.ready()
        if trainer is None:  # A model is divided by all processes together.
            trainer = load_trainer(setup.run.with_parallel("fsdp"), processes=processes)
        if stage == TRAIN:
            check_engine(trainer, setup.run.spec.train, next(setup.schedule.steps(0, 1)))
        if stage != PREDICT:
            trainer.join(processes)
            _train(setup, trainer)
        else:
            trainer.processes = processes
            trainer.engine.unpatch(trainer.model)
            processes.copy_from_main(trainer.trained.values())
            predict_test_split(setup, trainer)


def _train(setup: Setup, trainer: Trainer) -> None:
    spec = setup.run.spec
    follow(
        trainer,
        setup.schedule,
        spec.train,
        spec.seed,
        evaluate=lambda: predict_eval_split(setup, trainer),
    )
