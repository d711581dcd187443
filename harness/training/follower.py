"""The training of a worker: the same steps as in the main process, which decides and writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from harness.spec.setting_groups import TrainSettings
from harness.training.exchange import bytes_from_main
from harness.training.learning_rate import learning_rate_schedule
from harness.training.parallel.whole import finish, trained_state
from harness.training.schedule import Schedule, prefetch
from harness.training.state import load_state_of_main
from harness.training.trainer import Trainer


def follow(
    trainer: Trainer,
    schedule: Schedule,
    settings: TrainSettings,
    seed: int,
    evaluate: Callable[[], object],
) -> None:
    """Take the steps of ``loop.train`` in a worker, from the state of the main process on.

    Args:
        trainer: a trainer that joined the processes; changed in place.
        schedule: the order of the examples.
        settings: the settings of the training.
        seed: the run's seed.
        evaluate: predicts this process's share of the eval split.
    """
    processes = trainer.processes
    planned = schedule.planned_steps(settings.epochs, settings.max_steps)
    interval = schedule.steps_between_evaluations(settings.eval_every_epochs)
    scheduler = learning_rate_schedule(trainer.optimizer, settings, planned)
    trainer.events.begin(trainer.model, planned)
    now = load_state_of_main(trainer, scheduler)
    trainer.events.steps_done = now.step
    if now.best and now.best.step == now.step:
        trained_state(trainer)
    left = 0 if now.since_best >= settings.patience else planned - now.step
    trainer.model.train()
    steps = schedule.steps(now.step, left)
    for step, batches in prefetch(steps, trainer.engine.collate, processes.share):
        processes.seed(seed, now.step)
        trainer.step(batches, step.target_tokens)
        scheduler.step()
        now.step += 1
        if now.step % interval and now.step != planned:
            if trainer.shards and processes.decision():
                trained_state(trainer)
            continue
        evaluate()
        trainer.model.train()
        trained_state(trainer)
        message = json.loads(bytes_from_main(processes))
        trainer.events.evaluated(trainer.model, now.step, message["scores"])
        if message["stops"]:
            break
    finish(trainer)


def verdict(stops: bool, scores: Mapping[str, float]) -> bytes:
    """Return the message of the main process to the workers after an evaluation.

    Args:
        stops: whether the training ends.
        scores: metric name -> value.
    """
    return json.dumps({"stops": stops, "scores": dict(scores)}).encode()
