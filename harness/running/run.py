"""A run, phase by phase: from a resolved spec to a report."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import clock
from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
from harness.api.metric import Score
from harness.api.plugins import Plugins
from harness.costs.fit import resolve_checkpointing
from harness.errors import HarnessError, is_out_of_memory
from harness.evaluation.decoding import generate
from harness.evaluation.partial_predictions import PartialPredictions
from harness.evaluation.scoring import references_of
from harness.measurement.fingerprint import fingerprint, why_no_driver
from harness.measurement.memory import WHY_NOT_REACHED, memory_reached
from harness.measurement.probe import (
    NO_BASELINE,
    FrozenSchedule,
    add_flop_limit,
    freeze,
    probe_memory,
    probe_speed,
    without_baseline,
)
from harness.records.atomic import write_text
from harness.records.data_notes import data_notes
from harness.records.report import Failure, Report, Resumption, Status, Training
from harness.records.run_folder import (
    PARTIAL_PREDICTIONS,
    PREDICTIONS,
    SPEC,
    RunFolder,
    is_done,
    read_report,
)
from harness.running.baseline import apply_baseline
from harness.running.evaluate import predict_and_score
from harness.running.identity import identity
from harness.running.inputs import Inputs, read_inputs
from harness.running.merge_check import check_merge, load_trained
from harness.spec.run_spec import BASELINE, RunSpec
from harness.training.learning_rate import warmup_notes
from harness.training.log import NonFiniteLossError
from harness.training.loop import SAVE_STATE_SECONDS, Observers, train
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.schedule import Schedule
from harness.training.state import steps_done
from harness.training.trained_weights import load_weights
from harness.training.trainer import Trainer, choose_device, load_trainer

if TYPE_CHECKING:
    from pluggy import HookRelay


class RunTimeoutError(BaseException):
    """The time that a run was given is over.

    Raised wherever the run happens to be, so that like an interrupt it must pass by whoever
    handles exceptions of their own.
    """


class Run:
    """One run.

    Args:
        spec: resolved.
        plugins: what there is.
        results: where the run's folder goes.
        repeat: do again what is already done.
        save_state_seconds: how often training writes its state to disk, beside at evaluations.
        micro_batch: examples that go through the model at a time, in place of the spec's batch
            size; accumulation makes up for it, so that the run stays the same.
        processes: this one and those that ``run_worker`` it; by default it is alone.
    """

    def __init__(
        self,
        spec: RunSpec,
        plugins: Plugins,
        results: Path,
        *,
        repeat: bool = True,
        save_state_seconds: float = SAVE_STATE_SECONDS,
        micro_batch: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.requested = spec
        self.spec = cut(spec, micro_batch) if micro_batch else spec
        self.plugins = plugins
        self.results = results
        self.repeat = repeat
        self.save_state_seconds = save_state_seconds
        self.processes = processes or SINGLE_PROCESS
        self.phase = "load"
        self.hook: HookRelay = plugins.manager.hook
        self._began = 0.0

    def execute(self) -> tuple[Report, Path]:
        """Do it all; return the report, and the folder that holds it.

        A run that was stopped goes on where it was: phases that are done are not repeated, and
        training continues from its last snapshot.

        Raises:
            HarnessError: a mistake in the spec or the data, found before training began; nothing is
                left behind. Whatever happens later ends in a report, with a status that says so.
        """
        self._began = clock.seconds()
        self.hook.run_started(spec=self.spec)
        self._enter("load")
        inputs = read_inputs(self.spec, self.plugins)
        notes = (*inputs.backbone.notes, *data_notes(inputs.data), *self._training_notes(inputs))
        self.hook.data_read(event=DataRead(notes))
        run = identity(
            self.requested,
            inputs.backbone,
            inputs.recipe,
            inputs.task,
            inputs.data.sha256,
            self.plugins,
            self.processes.size,
        )
        folder = RunFolder(self.results, run)
        if not self.repeat and is_done(folder.final):
            folder.delete()
            return read_report(folder.final), folder.final
        report = folder.resume()
        if report is None:
            report = Report(
                id=run,
                status="ok",
                backbone=inputs.backbone.name,
                recipe=str(inputs.recipe),
                task=inputs.task.name,
                seed=self.spec.seed,
                settings=self.requested.settings_digest(),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=0,
                data=inputs.data,
                checkpoint_notes=list(inputs.backbone.notes),
            )
            write_text(folder.work / SPEC, self.requested.to_toml())
        else:
            report.resumed.append(_resumption(report, folder))
            folder.save(report)  # At once: it may be stopped again before the next phase ends.
        self._began -= report.seconds
        size = self.spec.train.batch_size
        report.micro_batch = size if size != self.requested.train.batch_size else None
        try:
            self._measure_and_train(inputs, report, folder)
        except (Exception, KeyboardInterrupt, RunTimeoutError) as error:
            if isinstance(error, HarnessError) and not folder.has_history:
                folder.delete()
                raise
            report.status = status_of(error)
            report.failure = Failure(
                phase=self.phase,
                message=_first_lines(error),
            )
            if report.status == "oom":
                device = choose_device(self.spec.device)
                report.failure.memory_bytes = memory_reached(error, device)
            report.not_measured |= _why_missing(report, report.failure)
        report.seconds = clock.seconds() - self._began
        place = folder.finish(report)
        self.hook.run_finished(report=report)
        return report, place

    def _training_notes(self, inputs: Inputs) -> list[str]:
        settings = self.spec.train
        schedule = self._schedule(inputs)
        return warmup_notes(settings, schedule.planned_steps(settings.epochs, settings.max_steps))

    def _schedule(self, inputs: Inputs) -> Schedule:
        settings = self.spec.train
        return Schedule(
            inputs.train.examples, settings.batch_size, settings.accumulation, self.spec.seed
        )

    def _enter(self, phase: str, steps: int | None = None) -> None:
        self.phase = phase
        self.hook.phase_started(event=PhaseStarted(phase, steps))

    def _save(self, report: Report, folder: RunFolder) -> None:
        report.seconds = clock.seconds() - self._began
        folder.save(report)

    def _measure_and_train(self, inputs: Inputs, report: Report, folder: RunFolder) -> None:
        """Fill what is still null in the report, and save it after every phase."""
        settings = self.spec.train
        schedule = self._schedule(inputs)
        frozen = freeze(schedule, self.spec.probe)
        self.spec = resolve_checkpointing(self.spec, inputs.backbone, inputs.recipe, frozen.longest)
        self._probe(frozen, report, folder)
        if report.speed:
            add_flop_limit(report.speed, inputs.backbone, inputs.recipe, frozen)

        self._enter("train", schedule.planned_steps(settings.epochs, settings.max_steps))
        trainer = load_trainer(inputs.backbone, inputs.recipe, self.spec)
        trainer.processes = self.processes
        report.layers_kept = trainer.layers_kept
        report.parameters = trainer.parameters
        report.checkpoint_notes = list(inputs.backbone.notes)
        report.fingerprint = fingerprint(
            trainer.device, trainer.dtype, trainer.engine.attention(trainer.model)
        )
        report.not_measured |= why_no_driver(report.fingerprint)
        if self.spec.probe.baseline not in ("probe", "off"):
            apply_baseline(report, Path(self.spec.probe.baseline))
        try:
            if report.training is None:
                began = clock.seconds()
                report.training = self._train(inputs, trainer, schedule, folder)
                # What an earlier start spent on steps that were kept.
                self._began -= report.training.seconds - (clock.seconds() - began)
                self._save(report, folder)
            else:
                load_weights(trainer.trained, folder.work)
        finally:
            trainer.engine.unpatch(trainer.model)
        if report.decoding is None:
            self._enter("evaluate", len(inputs.test_rows))
            partial_predictions = PartialPredictions(folder.work / PARTIAL_PREDICTIONS)
            self._began -= (
                partial_predictions.seconds
            )  # What an earlier start spent on what is kept.
            predict_and_score(
                inputs,
                trainer.model,
                trainer.dtype,
                self.spec.test,
                partial_predictions=partial_predictions,
                path=folder.work / PREDICTIONS,
                report=report,
                on_progress=lambda done: self._step_done(StepDone(done)),
            )
            self._save(report, folder)
        self._enter("hand-over")
        report.handover = check_merge(
            trainer.model,
            inputs.recipe,
            inputs.test.examples[:2],
            trainer.dtype,
            partial(load_trained, inputs.backbone, inputs.recipe, self.spec, trainer.trained),
        )
        if report.handover.float32_logit_difference is None:
            name = "handover.float32_logit_difference"
            report.not_measured[name] = "the model was evaluated in float32"

    def _train(
        self, inputs: Inputs, trainer: Trainer, schedule: Schedule, folder: RunFolder
    ) -> Training:
        sources = [example.source for example in inputs.eval.examples]

        def evaluate() -> dict[str, Score]:
            with trainer.unpatched() as model:
                predictions = generate(
                    model,
                    inputs.tokenizer,
                    sources,
                    self.spec.greedy,
                    shared_beams=inputs.backbone.shared_beams,
                    dtype=trainer.dtype,
                )
            rows = inputs.eval_rows
            references = references_of(rows, inputs.chooser)
            return inputs.chooser.score(rows["source"], predictions, references)

        return train(
            trainer,
            schedule,
            self.spec.train,
            evaluate=evaluate,
            best_metric=inputs.best_metric,
            folder=folder.work,
            observers=Observers(self._step_done, self._evaluated),
            save_state_seconds=self.save_state_seconds,
        )

    def _probe(self, frozen: FrozenSchedule, report: Report, folder: RunFolder) -> None:
        """Measure speed and memory, beside full fine-tuning where that is requested."""
        if report.memory:
            return
        spec = self.spec
        with_baseline = spec.probe.baseline == "probe"
        baseline = spec.model_copy(update={"recipe": BASELINE}) if with_baseline else None
        windows = spec.probe.rounds * (4 if with_baseline else 2)
        self._enter("probe speed", windows)
        done = 0

        def on_progress() -> None:
            nonlocal done
            done += 1
            self._step_done(StepDone(done))

        if report.speed is None:
            report.speed = probe_speed(spec, frozen, baseline, on_progress)
            self._save(report, folder)
        self._enter("probe memory")
        report.memory = probe_memory(spec, frozen, baseline)
        if baseline and report.speed.relative is None and report.memory.relative is None:
            without_baseline(report.speed, NO_BASELINE)  # Not even alone does it fit.
        self._save(report, folder)

    def _step_done(self, event: StepDone) -> None:
        self.hook.step_done(event=event)

    def _evaluated(self, event: Evaluated) -> None:
        self.hook.evaluated(event=event)


def status_of(error: BaseException) -> Status:
    """Return the typed outcome for what stopped a run."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, RunTimeoutError):
        return "timeout"
    if isinstance(error, NonFiniteLossError):
        return "nan"
    return "oom" if is_out_of_memory(error) else "error"


def cut(spec: RunSpec, micro_batch: int) -> RunSpec:
    """Return the spec with smaller micro-batches and as many examples to an optimizer step.

    Raises:
        ValueError: the spec's batch size is no multiple of it.
    """
    pieces, rest = divmod(spec.train.batch_size, micro_batch)
    if rest:
        raise ValueError(f"{spec.train.batch_size} is no multiple of {micro_batch}.")
    accumulation = spec.train.accumulation * pieces
    settings = {"batch_size": micro_batch, "accumulation": accumulation}
    return spec.model_copy(update={"train": spec.train.model_copy(update=settings)})


def _resumption(report: Report, folder: RunFolder) -> Resumption:
    """Say what a run that was stopped goes on with: the first of what is still null."""
    if report.speed is None:
        return Resumption(phase="probe speed")
    if report.memory is None:
        return Resumption(phase="probe memory")
    if report.training is None:
        return Resumption(phase="train", step=steps_done(folder.work))
    return Resumption(phase="hand-over" if report.decoding else "evaluate")


def _why_missing(report: Report, failure: Failure) -> dict[str, str]:
    """Say of what a run did not come to that it ended before."""
    parts = ("layers_kept", "parameters", "speed", "memory", "training", "handover", "fingerprint")
    why = f"{report.status} in the phase {failure.phase!r}"
    missing = {part: why for part in parts if getattr(report, part) is None}
    if report.status == "oom" and failure.memory_bytes is None:
        missing["failure.memory_bytes"] = WHY_NOT_REACHED
    return missing


def _first_lines(error: BaseException) -> str:
    if isinstance(error, HarnessError):
        return str(error)
    return str(error).partition("\n")[0] or type(error).__name__
