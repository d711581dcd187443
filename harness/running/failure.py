"""Failure of a run: its status, its message, and the missing parts of its report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from harness.errors import HarnessError, OutOfMemoryError, first_line, is_out_of_memory
from harness.measurement.memory import WHY_NOT_REACHED, memory_reached
from harness.records.phase import Phase
from harness.records.reasons import explain_nulls
from harness.records.report import Failure, Report, Status
from harness.records.run_folder import RunFolder
from harness.running.resumption import resumption_of
from harness.running.supervision import TIME_LIMITS, GroupFailure
from harness.spec.run_spec import RunSpec
from harness.training.failing import LostProcessError
from harness.training.log import NonFiniteLossError

_PARTS = (
    "layers_kept",
    "parameters",
    "speed",
    "memory",
    "inference",
    "process_costs",
    "training",
    "handover",
    "fingerprint",
)
"""Parts of a report that phases fill in."""


class RunTimeoutError(BaseException):
    """The time limit of a run is over.

    It is raised at any point of the run. Like ``KeyboardInterrupt`` it is no ``Exception``, so that
    code which handles exceptions of its own does not catch it.
    """


def status_of(error: BaseException) -> Status:
    """Return the status of a run that an exception ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, RunTimeoutError):
        return "timeout"
    if isinstance(error, NonFiniteLossError):
        return "nan"
    return "oom" if is_out_of_memory(error) else "error"


def record_failure(
    report: Report, error: BaseException, phase: Phase, device: torch.device
) -> None:
    """Record the failure of a run, and give it as the reason for each missing part of the report.

    Args:
        report: gets the status, the failure, and a reason for every part that the run did not
            reach.
        error: the exception that ended the run.
        phase: the phase that the run was in.
        device: the device of the training.
    """
    report.status = status_of(error)
    message = str(error) if isinstance(error, HarnessError) else first_line(error)
    report.failure = Failure(phase=phase.value, message=message)
    explain_nulls(report, f"{report.status} in the phase {phase.value!r}", *_PARTS)
    if report.status == "oom":
        report.failure.memory_bytes = memory_reached(error, device)
        explain_nulls(report, WHY_NOT_REACHED, "failure.memory_bytes")


def empty_report(id_: str, spec: RunSpec, status: Status, recipe: str) -> Report:
    """Return the report of a run that measured nothing.

    Args:
        id_: the id of the run.
        spec: the settings.
        status: the status of the run.
        recipe: the recipe in canonical form.
    """
    return Report(
        id=id_,
        status=status,
        backbone=spec.backbone,
        recipe=recipe,
        task=spec.task,
        seed=spec.seed,
        settings=spec.settings_digest(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0,
    )


def error_of(failure: GroupFailure) -> BaseException:
    """Return an error that stands for the failure of a group of processes."""
    if failure.stopped and -failure.status in TIME_LIMITS:
        return RunTimeoutError(failure.message)
    if failure.stopped:
        return KeyboardInterrupt(failure.message)
    if failure.out_of_memory:
        return OutOfMemoryError(failure.message)
    return LostProcessError(failure.message)


def finish_for(failure: GroupFailure, run: str, results: Path, spec: RunSpec) -> Path:
    """Write the report of a run whose first process could not, and return the run's folder.

    Args:
        failure: the failure that ended the processes.
        run: the id of the run.
        results: the folder of all runs.
        spec: the settings of the run.
    """
    folder = RunFolder(results, run)
    report = folder.resume() or empty_report(run, spec, "error", spec.recipe)
    phase = Phase(resumption_of(report, folder, spec.probe).phase)
    record_failure(report, error_of(failure), phase, torch.device("cpu"))
    return folder.finish(report)
