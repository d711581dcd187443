"""The phase that a stopped run resumes with."""

from __future__ import annotations

from harness.records.measurements import Memory, Speed
from harness.records.phase import Phase
from harness.records.report import Report, Resumption
from harness.records.run_folder import RunFolder
from harness.spec.setting_groups import ProbeSettings
from harness.training.state import read_progress

NO_MEMORY = "decoding ran out of memory"
"""Reason why a run has no costs of decoding."""


def lacks_costs(measured: Speed | Memory | None, settings: ProbeSettings) -> bool:
    """Return whether the speed or the memory of training was requested and is not yet measured."""
    return settings.training and measured is None


def lacks_inference(report: Report, settings: ProbeSettings) -> bool:
    """Return whether a report lacks the costs of decoding that were requested.

    A recipe that cannot decode here for lack of memory has the reason instead.
    """
    if not settings.inference or report.inference is not None:
        return False
    return report.not_measured.get("inference") != NO_MEMORY


def resumption_of(report: Report, folder: RunFolder, settings: ProbeSettings) -> Resumption:
    """Return the phase that a stopped run resumes with: the first one without a result."""
    if lacks_costs(report.speed, settings):
        return Resumption(phase=Phase.PROBE_SPEED.value)
    if lacks_costs(report.memory, settings):
        return Resumption(phase=Phase.PROBE_MEMORY.value)
    if lacks_inference(report, settings):
        return Resumption(phase=Phase.PROBE_INFERENCE.value)
    if report.training is None:
        return Resumption(phase=Phase.TRAIN.value, step=read_progress(folder.work).step)
    return Resumption(phase=(Phase.MERGE_CHECK if report.decoding else Phase.EVALUATE).value)
