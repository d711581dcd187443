"""Phases of a run after its data are read, one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from statistics import fmean

from harness import clock
from harness.api.events import StepDone
from harness.api.metric import Score
from harness.api.plugins import Plugins
from harness.errors import HarnessError, is_out_of_memory
from harness.evaluation.partial_predictions import PartialPredictions
from harness.evaluation.scoring import references_of
from harness.measurement.decoding_work import freeze_decoding, run_budget
from harness.measurement.fingerprint import explain_no_driver, fingerprint
from harness.measurement.inference import measure_inference
from harness.measurement.probe import (
    NO_BASELINE,
    add_flop_limit,
    probe_memory,
    probe_speed,
    without_baseline,
)
from harness.records.phase import Phase
from harness.records.reasons import explain_nulls
from harness.records.report import Report, Training
from harness.records.run_folder import PARTIAL_PREDICTIONS, PREDICTIONS, RunFolder
from harness.running.baseline import apply_baseline, baseline_folder
from harness.running.evaluate import predict_and_score
from harness.running.merge_check import check_merge, compare_with_float32, load_trained
from harness.running.process_costs import lacks_process_costs, process_costs
from harness.running.resumption import NO_MEMORY, lacks_costs, lacks_inference
from harness.running.run_observers import RunObservers
from harness.running.setup import Setup
from harness.running.shared_predictions import predict_eval_split
from harness.running.stopwatch import Stopwatch
from harness.running.stored_outputs import with_stored_outputs
from harness.running.together import load_together
from harness.spec.run_spec import BASELINE, RunSpec
from harness.training.build import load_trainer
from harness.training.loop import Observers, train
from harness.training.processes import MEASURE, PREDICT, Processes
from harness.training.restructure import restructure
from harness.training.trained_weights import load_weights
from harness.training.trainer import Trainer


@dataclass(frozen=True)
class RunContext:
    """Values that the phases of a run share.

    Attributes:
        setup: the settings, the inputs and the schedule of the run.
        plugins: the plugins of this environment.
        report: gets the results of each phase; a phase whose results it holds is not repeated.
        folder: the folder of the run.
        stopwatch: measures the wall time of the run.
        observers: the observers, which are called at every phase and step.
        processes: the processes that train together.
        save_state_seconds: seconds between saves of the training state.
    """

    setup: Setup
    plugins: Plugins
    report: Report
    folder: RunFolder
    stopwatch: Stopwatch
    observers: RunObservers
    processes: Processes
    save_state_seconds: float

    def save(self) -> None:
        """Write the report so far; an interrupted run resumes from it."""
        self.report.seconds = self.stopwatch.seconds
        self.folder.save(self.report)


def probe(context: RunContext) -> None:
    """Measure speed, memory and decoding, beside full fine-tuning if it was requested."""
    report, setup = context.report, context.setup
    spec = setup.run.spec
    if too_large := setup.parallel.too_large:
        explain_nulls(
            report, f"measured on one device, and {too_large}", "speed", "memory", "inference"
        )
        return
    with_baseline = spec.probe.baseline == "probe"
    baseline = spec.model_copy(update={"recipe": BASELINE}) if with_baseline else None
    if lacks_costs(report.speed, spec.probe):
        _measure_speed(context, baseline)
    if lacks_costs(report.memory, spec.probe):
        _measure_memory(context, baseline)
    if lacks_inference(report, spec.probe):
        _measure_inference(context, baseline)
    if not spec.probe.training:
        explain_nulls(report, "off (probe.training=false)", "speed", "memory", "process_costs")
    if not spec.probe.inference:
        explain_nulls(report, "off (probe.inference=false)", "inference")
    if spec.probe.training:
        _measure_processes(context)
    if report.speed:
        run = setup.run
        add_flop_limit(report.speed, run.backbone, run.recipe, setup.frozen, spec.seed)


def _measure_speed(context: RunContext, baseline: RunSpec | None) -> None:
    spec, observers = context.setup.run.spec, context.observers
    observers.enter(Phase.PROBE_SPEED, spec.probe.rounds * (4 if baseline else 2))
    on_progress = _counter(observers)
    context.report.speed = probe_speed(spec, context.setup.frozen, baseline, on_progress)
    context.save()


def _measure_memory(context: RunContext, baseline: RunSpec | None) -> None:
    report = context.report
    context.observers.enter(Phase.PROBE_MEMORY)
    report.memory = probe_memory(context.setup.run.spec, context.setup.frozen, baseline)
    speed = report.speed
    if baseline and speed and speed.relative is None and report.memory.relative is None:
        without_baseline(speed, NO_BASELINE)  # The baseline does not even fit alone.
    context.save()


def _measure_inference(context: RunContext, baseline: RunSpec | None) -> None:
    """Measure decoding; a run whose decoding does not fit into memory here goes on."""
    report, setup, observers = context.report, context.setup, context.observers
    spec = setup.run.spec
    observers.enter(Phase.PROBE_INFERENCE)
    # The budget is a share of the run's time; without a speed, of its time so far.
    windows_seconds = report.speed.window_seconds if report.speed else [0.0]
    step = fmean(windows_seconds) / spec.probe.steps / context.processes.size
    budget = run_budget(context.stopwatch.seconds, setup.planned_steps * step)
    work = freeze_decoding(setup.frozen, spec.test)
    try:
        report.inference = measure_inference(spec, work, baseline, budget, _counter(observers))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    explain_nulls(report, NO_MEMORY, "inference")
    context.save()


def _measure_processes(context: RunContext) -> None:
    """Measure what several processes cost, unless the run has been trained or measured so."""
    report, processes, setup = context.report, context.processes, context.setup
    if setup.parallel.kind == "fsdp":
        explain_nulls(report, "they are measured with the whole model in each", "process_costs")
    elif lacks_process_costs(report, setup.run.recipe, processes):
        context.observers.enter(Phase.PROBE_PROCESSES, setup.frozen.rounds * 4)
        report.process_costs = process_costs(
            setup,
            context.plugins,
            processes,
            on_ready=partial(processes.start, MEASURE),
            on_progress=_counter(context.observers),
        )
        explain_nulls(report, "", "process_costs")
        context.save()


def _counter(observers: RunObservers) -> Callable[[], None]:
    """Return a function that counts timed windows, for the observers."""
    windows = count(1)
    return lambda: observers.step_done(StepDone(next(windows)))


def train_best_weights(context: RunContext) -> Trainer:
    """Train, or load the weights if an earlier start of the run finished training.

    Returns:
        The trainer, its model with the best weights and without the engine's patches.
    """
    report = context.report
    if report.training is None:
        context = _with_stored_outputs(context)
    setup, run = context.setup, context.setup.run
    context.observers.enter(Phase.TRAIN, setup.planned_steps)
    trainer = load_trainer(run) if report.training else load_together(run, setup, context.processes)
    _describe(trainer, report)
    report.checkpoint_notes = list(setup.run.backbone.notes)
    if (folder := baseline_folder(setup.run.spec.probe)) and report.speed:
        apply_baseline(report, folder)
    context.save()
    try:
        if report.training is None:
            began = clock.seconds()
            report.training = _train(context, trainer)
            _describe(trainer, report)
            # Earlier starts spent the rest of the time on steps that were kept.
            context.stopwatch.carry(report.training.seconds - (clock.seconds() - began))
            context.save()
        else:
            if report.training.changes:
                restructure(trainer, report.training.changes)
                _describe(trainer, report)
            load_weights(trainer.trained, context.folder.work)
    finally:
        trainer.engine.unpatch(trainer.model)
        trainer.objective.release_teacher()
    return trainer


def _with_stored_outputs(context: RunContext) -> RunContext:
    """Compute what the recipe stores before training; it is reported by itself.

    So it counts the same for every run that reads it.
    """
    began = clock.seconds()
    stored = with_stored_outputs(
        context.setup,
        context.observers.enter,
        lambda done: context.observers.step_done(StepDone(done)),
    )
    context.stopwatch.carry(began - clock.seconds())
    if stored.teacher_seconds is not None:
        context.report.teacher_seconds = stored.teacher_seconds
    context.report.encoder_seconds = stored.encoder_seconds
    return replace(context, setup=stored.setup)


def _describe(trainer: Trainer, report: Report) -> None:
    """Record the kept layers, the parameters and the machine in the report."""
    report.layers_kept = trainer.layers_kept
    report.parameters = trainer.parameters
    if report.fingerprint is None:  # Else it is that of the start which measured.
        attention = trainer.engine.attention(trainer.model)
        report.fingerprint = fingerprint(trainer.device, trainer.dtype, attention)
        explain_no_driver(report)


def _train(context: RunContext, trainer: Trainer) -> Training:
    setup = context.setup
    inputs, run = setup.inputs, setup.run

    def score_eval_split() -> dict[str, Score]:
        predictions = predict_eval_split(setup, trainer)
        rows = inputs.eval_rows
        references = references_of(rows, inputs.chooser)
        return inputs.chooser.score(rows["source"], predictions, references)

    training = train(
        trainer,
        setup.schedule,
        run.spec.train,
        evaluate=score_eval_split,
        best_metric=inputs.best_metric,
        folder=context.folder.work,
        observers=Observers(context.observers.step_done, context.observers.evaluated),
        save_state_seconds=context.save_state_seconds,
    )
    training.parallel = setup.parallel.kind
    training.notes += setup.parallel.notes
    return training


def evaluate(context: RunContext, trainer: Trainer) -> None:
    """Predict and score the test split, unless an earlier start of the run did."""
    if context.report.decoding is not None:
        return
    inputs, work = context.setup.inputs, context.folder.work
    context.observers.enter(Phase.EVALUATE, len(inputs.test_rows))
    partial_predictions = PartialPredictions(work / PARTIAL_PREDICTIONS)
    context.stopwatch.carry(partial_predictions.seconds)
    if context.setup.run.spec.test.decoder == "harness":
        context.processes.start(PREDICT)
        trainer.processes = context.processes
        context.processes.copy_from_main(trainer.trained.values())
    predict_and_score(
        context.setup,
        trainer,
        partial_predictions=partial_predictions,
        path=work / PREDICTIONS,
        report=context.report,
        on_progress=lambda examples: context.observers.step_done(StepDone(examples)),
    )
    context.save()


def check_merged_model(context: RunContext, trainer: Trainer) -> None:
    """Check that the merged model computes the same as the trained model."""
    setup, report = context.setup, context.report
    context.observers.enter(Phase.MERGE_CHECK)
    examples = setup.inputs.test.examples[:2]
    load_float32 = partial(load_trained, setup.run, trainer.trained, trainer.changes)
    difference, reason = compare_with_float32(trainer.model, examples, trainer.dtype, load_float32)
    try:
        report.handover = check_merge(trainer.model, setup.run.recipe, examples)
    except HarnessError as error:  # What the recipe added has no place in the backbone's weights.
        explain_nulls(report, error.message, "handover")
        return
    report.handover.float32_logit_difference = difference
    if reason is not None:
        explain_nulls(report, reason, "handover.float32_logit_difference")
