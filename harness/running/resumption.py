"""The phase that a stopped run resumes with."""

from __future__ import annotations

from harness.records.phase import Phase
from harness.records.report import Report, Resumption
from harness.records.run_folder import RunFolder
from harness.running.phases import lacks_costs, lacks_inference
from harness.spec.setting_groups import ProbeSettings
from harness.training.state import read_progress


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
