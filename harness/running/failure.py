"""Failure of a run: its status, its message, and the missing parts of its report."""

from __future__ import annotations

import torch

from harness.errors import HarnessError, first_line, is_out_of_memory
from harness.measurement.memory import WHY_NOT_REACHED, memory_reached
from harness.records.phase import Phase
from harness.records.reasons import explain_nulls
from harness.records.report import Failure, Report, Status
from harness.training.log import NonFiniteLossError

_PARTS = (
    "layers_kept",
    "parameters",
    "speed",
    "memory",
    "inference",
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
