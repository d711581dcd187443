"""Run: executes the phases in order, from a resolved spec to a report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from harness.api.events import DataRead, StepDone
from harness.api.plugin_files import FOLDER
from harness.api.plugins import Plugins
from harness.data.progress import shown_by
from harness.errors import HarnessError
from harness.evaluation.teacher_targets import target_notes
from harness.records.atomic import write_text
from harness.records.data_notes import data_notes
from harness.records.phase import Phase
from harness.records.report import Report
from harness.records.run_folder import PROGRESS, SPEC, RunFolder, is_done, read_report
from harness.running.adoption import adopt_unfinished
from harness.running.failure import RunTimeoutError, record_failure
from harness.running.identity import identity
from harness.running.inputs import Inputs, read_inputs
from harness.running.launch import announce, is_restarted, is_supervised
from harness.running.phases import (
    RunContext,
    check_merged_model,
    evaluate,
    probe,
    train_best_weights,
)
from harness.running.resumption import resumption_of
from harness.running.run_observers import RunObservers
from harness.running.setup import planned_steps, schedule_of, set_up
from harness.running.stopwatch import Stopwatch
from harness.spec.run_spec import RunSpec
from harness.training.failing import LostProcessError, TerminatedError
from harness.training.learning_rate import warmup_notes
from harness.training.loop import SAVE_STATE_SECONDS
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.stored_encoder import encoder_storage_notes
from harness.training.stored_teacher import storage_notes
from harness.training.teacher_model import find_teacher


class Run:
    """One run.

    Args:
        spec: the settings, with every default filled in.
        plugins: the plugins of this environment.
        results: the folder of all runs, which gets this run's folder.
        repeat: repeat a run that is already done; otherwise its report is returned.
        save_state_seconds: seconds between saves of the training state; it is also saved at
            evaluations.
        micro_batch: number of examples in a micro-batch, in place of the spec's batch size. More
            accumulation keeps the optimizer step the same.
        processes: this process and those that execute ``run_worker`` for this run; by default this
            process alone.
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
        self.spec = spec.with_micro_batch(micro_batch) if micro_batch else spec
        self.plugins = plugins
        self.results = results
        self.repeat = repeat
        self.save_state_seconds = save_state_seconds
        self.micro_batch = micro_batch
        self.processes = processes or SINGLE_PROCESS
        self.observers = RunObservers(plugins.manager.hook)

    @property
    def phase(self) -> Phase:
        """The phase that the run is in, or ended in."""
        return self.observers.phase

    def execute(self) -> tuple[Report, Path]:
        """Execute all phases; return the report, and the folder that holds it.

        A run that was stopped resumes: finished phases are not repeated, and training continues
        from its last saved state.

        Raises:
            HarnessError: a mistake in the spec or the data, found before training began; no files
                are left. Every later failure ends in a report with the status of the failure.
        """
        stopwatch = Stopwatch()
        self.observers.run_started(self.spec)
        self.observers.enter(Phase.LOAD)
        with shown_by(lambda rows: self.observers.step_done(StepDone(rows))):
            inputs = read_inputs(self.requested, self.plugins)
        self.observers.data_read(DataRead(_notes(inputs)))
        data_sha256 = inputs.data.sha256
        id_ = identity(inputs.run, inputs.task, data_sha256, self.plugins, self.processes.size)
        folder = RunFolder(self.results, id_)
        finished = is_done(folder.final) and (not self.repeat or _finished_before(folder))
        announce(id_)
        if finished:
            folder.delete()
            folder.remove_progress()
            return read_report(folder.final), folder.final
        report = self._resumed_report(folder) or self._new_report(id_, inputs, folder)
        stopwatch.carry(report.seconds)
        size = self.spec.train.batch_size
        report.micro_batch = size if size != self.requested.train.batch_size else None
        try:
            self._execute_phases(inputs, report, folder, stopwatch)
        except (Exception, KeyboardInterrupt, RunTimeoutError) as error:
            if isinstance(error, HarnessError) and not folder.has_history:
                folder.delete()
                raise
            cause = self.processes.cause(error)
            if is_supervised() and isinstance(cause, (LostProcessError, TerminatedError)):
                raise cause from error  # The launcher knows the reason, and writes the report.
            record_failure(report, cause, self.phase, inputs.run.device)
        report.seconds = stopwatch.seconds
        place = folder.finish(report)
        self.observers.run_finished(report)
        return report, place

    def _execute_phases(
        self, inputs: Inputs, report: Report, folder: RunFolder, stopwatch: Stopwatch
    ) -> None:
        """Execute the phases whose results the report lacks, and save it after each."""
        context = RunContext(
            setup=set_up(inputs, self.micro_batch, self.processes),
            plugins=self.plugins,
            report=report,
            folder=folder,
            stopwatch=stopwatch,
            observers=self.observers,
            processes=self.processes,
            save_state_seconds=self.save_state_seconds,
        )
        probe(context)
        trainer = train_best_weights(context)
        evaluate(context, trainer)
        check_merged_model(context, trainer)

    def _new_report(self, id_: str, inputs: Inputs, folder: RunFolder) -> Report:
        write_text(folder.work / SPEC, self.requested.to_toml())
        for file in self.plugins.files:
            (folder.work / FOLDER).mkdir(exist_ok=True)
            write_text(folder.work / FOLDER / file.name, file.text)
        teacher = find_teacher(inputs.run.recipe)
        return Report(
            id=id_,
            status="ok",
            backbone=inputs.run.backbone.name,
            backbone_version=inputs.run.backbone.version(),
            recipe=str(inputs.run.recipe),
            task=inputs.task.name,
            seed=self.spec.seed,
            plugin_files={file.name: file.sha256 for file in self.plugins.files},
            settings=self.requested.settings_digest(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0,
            teacher_seconds=teacher.seconds if teacher else 0,
            data=inputs.data,
            checkpoint_notes=list(inputs.run.backbone.notes),
        )

    def _resumed_report(self, folder: RunFolder) -> Report | None:
        """Return the report of an earlier start that was stopped, if there was one."""
        adopt_unfinished(folder, self.processes.size)
        report = folder.resume()
        if report is not None:
            report.id = folder.final.name
            resumption = resumption_of(report, folder, self.spec.probe)
            resumption.processes = self.processes.size
            report.resumed.append(resumption)
            folder.save(report)  # The run may be stopped again before the next phase ends.
        return report


def _finished_before(folder: RunFolder) -> bool:
    """Return whether a process was lost after the report was written, and all were restarted."""
    return is_restarted() and not (folder.work / PROGRESS).exists()


def _notes(inputs: Inputs) -> tuple[str, ...]:
    """Return notes on the checkpoint, the data and the settings, to be shown before training."""
    planned = planned_steps(schedule_of(inputs, inputs.run), inputs.run)
    return (
        *inputs.run.backbone.notes,
        *data_notes(inputs.data),
        *target_notes(inputs.run, inputs.train.examples),
        *storage_notes(inputs.run, inputs.train.examples),
        *encoder_storage_notes(inputs.run, inputs.train.examples),
        *warmup_notes(inputs.run.spec.train, planned),
    )
