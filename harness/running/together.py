"""The beginning of a training by all processes of a run."""

from __future__ import annotations

from harness.running.setup import Setup
from harness.training.build import load_trainer
from harness.training.engine_check import check_engine
from harness.training.processes import TRAIN, TRAIN_SHARDED, Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.trainer import Trainer


def load_together(run: ResolvedRun, setup: Setup, processes: Processes) -> Trainer:
    """Load the model in the first process, and let the others begin their training.

    Args:
        run: the run, with what its teacher stored.
        setup: tells whether the processes divide the model, and the steps.
        processes: the processes that train together.
    """
    if setup.parallel.kind == "fsdp":
        processes.start(TRAIN_SHARDED)
        trainer = load_trainer(run.with_parallel("fsdp"), processes=processes)
    else:
        trainer = load_trainer(run)
        processes.start(TRAIN)
        check_engine(trainer, run.spec.train, next(setup.schedule.steps(0, 1)))
    trainer.join(processes)
    return trainer
