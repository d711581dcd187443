"""Outputs of models that read the training split once, before a run trains."""

from __future__ import annotations

from harness import clock
from harness.api.events import StepDone
from harness.data.examples import Examples
from harness.records.phase import Phase
from harness.records.report import Report
from harness.running.run_observers import RunObservers
from harness.running.stopwatch import Stopwatch
from harness.training.resolved_run import ResolvedRun
from harness.training.stored_encoder import with_stored_encoder
from harness.training.stored_teacher import with_stored_teacher
from harness.training.teacher_model import find_teacher


def with_stored_outputs(
    run: ResolvedRun,
    examples: Examples,
    report: Report,
    observers: RunObservers,
    stopwatch: Stopwatch,
) -> ResolvedRun:
    """Return the run with all that its recipe stores, computed now or by an earlier run.

    Its time is reported by itself, so that it counts the same for every run that reads it.

    Args:
        run: the run.
        examples: the training split.
        report: gets the seconds.
        observers: are called with the progress.
        stopwatch: does not count the time.
    """
    began = clock.seconds()

    def on_progress(done: int) -> None:
        observers.step_done(StepDone(done))

    teacher = run.recipe.teacher
    if teacher is not None and teacher.top is not None:
        observers.enter(Phase.TEACH, len(examples))
        run = with_stored_teacher(run, examples, on_progress)
        model = find_teacher(run.recipe)
        stored = run.taught.seconds if run.taught else 0
        report.teacher_seconds = (model.seconds if model else 0) + stored
    if run.recipe.encoder_storage is not None:
        observers.enter(Phase.ENCODE, len(examples))
        run = with_stored_encoder(run, examples, on_progress)
        report.encoder_seconds = run.encoded.seconds if run.encoded else 0
    stopwatch.carry(began - clock.seconds())
    return run
