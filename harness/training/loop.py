"""The training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import get_linear_schedule_with_warmup

from harness.events import Evaluated, StepDone
from harness.reporting.folder import HISTORY
from harness.reporting.report import Training
from harness.reporting.writing import append_line
from harness.spec import TrainSettings
from harness.training.checkpoint import keep, restore
from harness.training.history import History
from harness.training.schedule import Schedule, prefetch
from harness.training.snapshot import Snapshots
from harness.training.trainee import Trainee

SNAPSHOT_SECONDS = 300.0
"""How much work a killed run loses at most, beside that since its last evaluation."""


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
    snapshot_seconds: float = SNAPSHOT_SECONDS,
) -> Training:
    """Fine-tune, and leave the model with the weights that scored best on the eval split.

    Goes on from the folder's snapshot if there is one, and ends with the bits that it would have
    ended with in one go.

    Args:
        trainee: the model; changed in place.
        schedule: the order of the examples.
        settings: how long, and when to evaluate.
        evaluate: scores the eval split; returns metric -> corpus value, higher is better.
        primary_metric: the one that chooses the best weights.
        folder: gets ``history.jsonl``, snapshots and the best weights.
        observers: who is told.
        snapshot_seconds: write a snapshot that often, beside those at evaluations.

    Raises:
        NonFiniteLossError: training diverged.
    """
    per_epoch = schedule.steps_per_epoch
    planned = schedule.planned_steps(settings.epochs, settings.max_steps)
    interval = schedule.steps_between_evaluations(settings.eval_every_epochs)
    warmup = min(settings.warmup_steps, planned)
    scheduler = get_linear_schedule_with_warmup(trainee.optimizer, warmup, planned)
    file = folder / HISTORY
    snapshots = Snapshots(folder, trainee, scheduler, snapshot_seconds)
    now = snapshots.now
    if now.best and now.best.step == now.step:
        keep(trainee.trained, folder)  # The run may have died between the two.
    left = 0 if now.since_best >= settings.patience else planned - now.step
    checked = False
    behind = 0 if trainee.device.type == "cpu" else 1
    history = History(file, observers.step_done, behind)
    trainee.model.train()
    processes = trainee.processes
    processes.start(now.step)
    steps = schedule.steps(now.step, left)
    for step, batches in prefetch(steps, trainee.engine.collate, processes.share):
        rate = scheduler.get_last_lr()[0]
        loss = trainee.step(batches, step.target_tokens, check=not checked, number=now.step)
        checked = True
        scheduler.step()
        now.step += 1
        history.step_taken(now.step, loss, rate)
        if now.step % interval and now.step != planned:
            if snapshots.due:
                history.catch_up()
                snapshots.save()
            continue
        history.catch_up()
        scores = evaluate()
        trainee.model.train()
        is_best = now.best is None or scores[primary_metric] > now.best.values[primary_metric]
        event = Evaluated(now.step, now.step / per_epoch, scores, is_best)
        append_line(file, {"step": now.step, "epoch": round(event.epoch, 4), "eval": scores})
        observers.evaluated(event)
        now.best, now.since_best = (event, 0) if is_best else (now.best, now.since_best + 1)
        # In this order: kept weights never belong to a later step than the snapshot's best.
        snapshots.save()
        if is_best:
            keep(trainee.trained, folder)
        if now.since_best >= settings.patience:
            break
    assert now.best is not None
    restore(trainee.trained, folder)
    return Training(
        steps=now.step,
        planned_steps=planned,
        best_step=now.best.step,
        best_value=now.best.values[primary_metric],
        learning_rate=trainee.learning_rate,
        stopped="finished" if now.step == planned else "patience",
        seconds=snapshots.seconds,
        processes=processes.size,
    )
