"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import get_linear_schedule_with_warmup

from harness.events import Evaluated, StepDone
from harness.reporting.report import Training
from harness.reporting.writing import append_line
from harness.spec import TrainSettings
from harness.training.checkpoint import keep, restore
from harness.training.schedule import Schedule, prefetch
from harness.training.trainee import Trainee


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class Observers:
    """Who is told what happens."""

    step_done: Callable[[StepDone], None]
    evaluated: Callable[[Evaluated], None]


def train(
    trainee: Trainee,
    schedule: Schedule,
    settings: TrainSettings,
    *,
    evaluate: Callable[[], dict[str, float]],
    primary_metric: str,
    folder: Path,
    observers: Observers,
) -> Training:
    """Fine-tune, and leave the model with the weights that scored best on the eval split.

    Args:
        trainee: the model; changed in place.
        schedule: the order of the examples.
        settings: how long, and when to evaluate.
        evaluate: scores the eval split; returns metric -> corpus value, higher is better.
        primary_metric: the one that chooses the best weights.
        folder: gets ``history.jsonl`` and the best weights.
        observers: who is told.

    Raises:
        NonFiniteLossError: training diverged.
    """
    began = time.perf_counter()
    per_epoch = schedule.steps_per_epoch
    planned = schedule.planned_steps(settings.epochs, settings.max_steps)
    interval = max(1, round(settings.eval_every_epochs * per_epoch))
    warmup = min(settings.warmup_steps, planned)
    scheduler = get_linear_schedule_with_warmup(trainee.optimizer, warmup, planned)
    history = folder / "history.jsonl"
    best: Evaluated | None = None
    since_best = 0
    done = 0
    trainee.model.train()
    for step, batches in prefetch(schedule.steps(0, planned), trainee.engine.collate):
        rate = scheduler.get_last_lr()[0]
        loss = float(trainee.step(batches, step.target_tokens, check=done == 0))
        scheduler.step()
        done += 1
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"The loss of step {done} is {loss}.")
        values = {"loss": loss, "learning_rate": rate}
        append_line(history, {"step": done, **values})
        observers.step_done(StepDone(done, values))
        if done % interval and done != planned:
            continue
        scores = evaluate()
        trainee.model.train()
        is_best = best is None or scores[primary_metric] > best.values[primary_metric]
        event = Evaluated(done, done / per_epoch, scores, is_best)
        append_line(history, {"step": done, "epoch": round(event.epoch, 4), "eval": scores})
        observers.evaluated(event)
        if is_best:
            best, since_best = event, 0
            keep(trainee.trained, folder)
        else:
            since_best += 1
            if since_best >= settings.patience:
                break
    assert best is not None
    restore(trainee.trained, folder)
    return Training(
        steps=done,
        planned_steps=planned,
        best_step=best.step,
        best_value=best.values[primary_metric],
        learning_rate=trainee.learning_rate,
        stopped="finished" if done == planned else "patience",
        seconds=time.perf_counter() - began,
    )
