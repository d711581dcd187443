"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.api.events import Evaluated, StepDone
from harness.api.metric import Score
from harness.records.atomic import append_line
from harness.records.report import Training
from harness.records.run_folder import HISTORY
from harness.spec.setting_groups import TrainSettings
from harness.training.best_weights import is_better
from harness.training.division import division_notes
from harness.training.engine_name import fallback_notes
from harness.training.exchange import bytes_from_main
from harness.training.follower import verdict
from harness.training.learning_rate import (
    continued_schedule,
    highest_rates,
    learning_rate_schedule,
    peak_notes,
    rate_notes,
    warmup_notes,
)
from harness.training.log import TrainingLog
from harness.training.parallel.whole import finish, trained_state
from harness.training.recording import plan_shapes
from harness.training.restructure import change_notes, restructure
from harness.training.schedule import SAMPLED_STEPS, Schedule, prefetch, step_sizes
from harness.training.state import Progress, StateSaver, saved_changes
from harness.training.stored_encoder import stored_notes
from harness.training.trained_weights import load_weights, save_weights
from harness.training.trainer import Trainer

SAVE_STATE_SECONDS = 300.0
"""Seconds between two saved training states; a killed run loses at most so much work."""


@dataclass(frozen=True)
class Observers:
    """The functions that are called during training.

    Attributes:
        step_done: called after each optimizer step.
        evaluated: called after each evaluation.
    """

    step_done: Callable[[StepDone], None]
    evaluated: Callable[[Evaluated], None]


def train(
    trainer: Trainer,
    schedule: Schedule,
    settings: TrainSettings,
    *,
    evaluate: Callable[[], Mapping[str, Score]],
    best_metric: str,
    folder: Path,
    observers: Observers,
    save_state_seconds: float = SAVE_STATE_SECONDS,
) -> Training:
    """Fine-tune, and leave the model with the weights that scored best on the eval split.

    Resumes from the folder's training state if there is one. On a CPU a resumed training ends with
    the same weights, bit for bit, as one without a break. On CUDA the backward pass adds in any
    order, so that the last digits differ.

    Args:
        trainer: the model, the engine and the optimizer; changed in place.
        schedule: the order of the examples.
        settings: length of the training, times of evaluation, learning rate and patience.
        evaluate: scores the eval split.
        best_metric: name of the score that chooses the best weights.
        folder: receives ``history.jsonl``, the training state and the best weights.
        observers: are called after each step and each evaluation.
        save_state_seconds: seconds between two saved training states. The state is also saved
            after each evaluation.

    Returns:
        The report's section on training. Without a finite value of the best metric, its best value
        is None.

    Raises:
        NonFiniteLossError: training diverged.
    """
    loop = _Loop(trainer, schedule, settings, evaluate, best_metric, folder, observers)
    saver = StateSaver(folder, trainer, loop.scheduler, save_state_seconds)
    loop.run(saver)
    report = loop.report(saver)
    finish(trainer)
    load_weights(trainer.trained, folder)
    return report


class _Loop:
    """The steps and evaluations of one training; see ``train`` for the arguments."""

    def __init__(
        self,
        trainer: Trainer,
        schedule: Schedule,
        settings: TrainSettings,
        evaluate: Callable[[], Mapping[str, Score]],
        best_metric: str,
        folder: Path,
        observers: Observers,
    ) -> None:
        self.trainer = trainer
        self.schedule = schedule
        self.settings = settings
        self.evaluate = evaluate
        self.best_metric = best_metric
        self.folder = folder
        self.observers = observers
        self.planned = schedule.planned_steps(settings.epochs, settings.max_steps)
        self.interval = schedule.steps_between_evaluations(settings.eval_every_epochs)
        trainer.events.begin(trainer.model, self.planned)
        if changes := saved_changes(folder):
            restructure(trainer, changes)
        self.scheduler = learning_rate_schedule(trainer.optimizer, settings, self.planned)

    def run(self, saver: StateSaver) -> None:
        """Take the remaining steps, until the last one or until the patience is used up."""
        trainer, now = self.trainer, saver.now
        trainer.events.steps_done = now.step
        if now.best and now.best.step == now.step:
            # A run may die between saving its state and its best weights.
            save_weights(trained_state(trainer).weights, self.folder)
        left = 0 if now.since_best >= self.settings.patience else self.planned - now.step
        behind = 0 if trainer.device.type == "cpu" else 1
        log = TrainingLog(self.folder / HISTORY, self.observers.step_done, behind)
        trainer.model.train()
        processes = trainer.processes
        now.divide(processes.size)
        sample = self.schedule.steps(0, min(self.planned, SAMPLED_STEPS))
        plan_shapes(trainer, step_sizes(sample), self.planned)
        steps = self.schedule.steps(now.step, left)
        is_new = True  # The model has not yet taken a step with its structure.
        for step, batches in prefetch(steps, trainer.engine.collate, processes.share):
            rate = float(self.scheduler.get_last_lr()[0])
            now.highest_rate = max(now.highest_rate, rate)
            loss = trainer.step(batches, step.target_tokens, check=is_new)
            self.scheduler.step()
            now.step += 1
            log.step_taken(now.step, loss, rate)
            is_new = self._change_structure(saver)
            if now.step % self.interval and now.step != self.planned:
                if saver.due:
                    log.catch_up()
                    saver.save()
                continue
            log.catch_up()
            values = self._evaluate(saver)
            stops = now.since_best >= self.settings.patience
            bytes_from_main(processes, verdict(stops, values))
            if stops:
                break

    def _change_structure(self, saver: StateSaver) -> bool:
        """Make the changes that compressors ask for after a step; return whether there are any.

        Weights of the old structure are no longer the best ones.
        """
        trainer = self.trainer
        changes = trainer.events.changes(trainer.model, trainer.run.backbone)
        if not changes:
            return False
        restructure(trainer, changes)
        self.scheduler = saver.scheduler = continued_schedule(
            self.scheduler, trainer.optimizer, self.settings, self.planned
        )
        saver.now.best, saver.now.since_best = None, 0
        return True

    def _evaluate(self, saver: StateSaver) -> Mapping[str, float]:
        """Score the eval split; save the training state, and the weights if they are the best.

        Returns:
            The scores: metric name -> value.
        """
        now, file = saver.now, self.folder / HISTORY
        scores = self.evaluate()
        self.trainer.model.train()
        event = _compared(scores, self.best_metric, now, self.schedule.steps_per_epoch)
        values = {
            name: value if math.isfinite(value) else None for name, value in event.values.items()
        }
        append_line(file, {"step": now.step, "epoch": round(event.epoch, 4), "eval": values})
        self.observers.evaluated(event)
        self.trainer.events.evaluated(self.trainer.model, now.step, event.values)
        now.since_best = 0 if event.best else now.since_best + 1
        # While every value is NaN, the latest weights are kept.
        if event.best or now.best is None or math.isnan(now.best.values[self.best_metric]):
            now.best = event
        # In this order, the saved weights never belong to a later step than the state's best.
        state = saver.save()
        if now.best is event:
            save_weights(state.weights, self.folder)
        return event.values

    def report(self, saver: StateSaver) -> Training:
        """Return the report's section on the training that has ended."""
        now = saver.now
        assert now.best is not None
        best = now.best.values[self.best_metric]
        rates = highest_rates(self.trainer.optimizer, now.highest_rate)
        return Training(
            steps=now.step,
            planned_steps=self.planned,
            best_step=now.best.step,
            best_metric=self.best_metric,
            best_value=best if math.isfinite(best) else None,
            learning_rate=now.highest_rate,
            learning_rates=rates,
            changes=self.trainer.changes,
            notes=[
                *change_notes(self.trainer.changes),
                *warmup_notes(self.settings, self.planned),
                *peak_notes(self.settings, self.trainer.events.compressors),
                *rate_notes(rates),
                *fallback_notes(self.trainer),
                *stored_notes(self.trainer.run),
                *division_notes(now),
            ],
            stopped="finished" if now.step == self.planned else "patience",
            seconds=saver.seconds,
            processes=now.processes,
            process_counts=dict(now.divisions),
        )


def _compared(
    scores: Mapping[str, Score], best_metric: str, now: Progress, per_epoch: int
) -> Evaluated:
    """Return an evaluation's event, which says whether it is the best one so far."""
    values = {name: score.value for name, score in scores.items()}
    best = now.best.values[best_metric] if now.best else math.nan
    won = is_better(values[best_metric], best, scores[best_metric].higher_is_better)
    return Evaluated(now.step, now.step / per_epoch, values, won)
