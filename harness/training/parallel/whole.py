"""A trainer's results as one process has them, whether its model is sharded or not."""

from __future__ import annotations

from harness.training.objective import LossSum
from harness.training.parallel.trained_state import TrainedState, gathered_state
from harness.training.trainer import Trainer


def trained_state(trainer: Trainer) -> TrainedState:
    """Return the trained weights and the optimizer's state, to save them.

    If the model is sharded, every process must call this between two steps, and only the main
    process gets the state.
    """
    if trainer.shards is not None:
        return gathered_state(trainer.trained, trainer.optimizer)
    return TrainedState(trainer.trained, trainer.optimizer.state_dict())


def finish(trainer: Trainer) -> None:
    """End a training: a sharded model becomes whole in every process, all of which must call this.

    The trainer cannot take further steps.
    """
    if trainer.shards is None:
        return
    trainer.engine.unpatch(trainer.model)
    trainer.optimizer.state.clear()
    trainer.model, trainer.shards = trainer.shards.gather({}), None
    names = trainer.trained.keys()
    trainer.trained = {n: p for n, p in trainer.model.named_parameters() if n in names}
    trainer._loss = LossSum(trainer.model, trainer.objective)
    for group in trainer.optimizer.param_groups:
        group["params"] = []
