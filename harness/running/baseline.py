"""Comparing a run with an earlier one: only on equal ground."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.records.measurements import Fingerprint, Memory, Speed
from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.spec.run_spec import BASELINE


def read_baseline(folder: Path) -> Report:
    """Read the report of an earlier run of full fine-tuning.

    Raises:
        HarnessError: there is none, or the run cannot be a baseline.
    """
    earlier = read_report(folder)
    if earlier.recipe != BASELINE or earlier.status != "ok":
        raise HarnessError(
            f"The run {earlier.id} cannot be a baseline: it is {earlier.recipe} and ended as "
            f"{earlier.status}.",
            f"Name a good run of {BASELINE}, or leave probe.baseline out to measure one.",
        )
    return earlier


def apply_baseline(report: Report, folder: Path) -> None:
    """Fill in relative speed and memory from an earlier run of full fine-tuning.

    Args:
        report: has speed, memory and fingerprint.
        folder: the earlier run's.

    Raises:
        HarnessError: the two were not measured on equal ground.
    """
    earlier = read_baseline(folder)
    speed, memory, ours = _measured(report)
    their_speed, their_memory, theirs = _measured(earlier)
    unlike = [
        f"{name} ({getattr(theirs, name)} there, {getattr(ours, name)} here)"
        for name in Fingerprint.model_fields
        if getattr(ours, name) != getattr(theirs, name)
    ]
    if speed.schedule_sha256 != their_speed.schedule_sha256:
        unlike.append("the batches that were timed")
    if unlike:
        raise HarnessError(
            f"The run {earlier.id} cannot be the baseline of this one: they differ in "
            f"{', '.join(unlike)}.",
            "Leave probe.baseline out to measure a baseline here.",
        )
    speed.relative = speed.tokens_per_s / their_speed.tokens_per_s
    speed.baseline = f"run {earlier.id}; not interleaved, so there is no interval"
    memory.relative = memory.peak_bytes / their_memory.peak_bytes
    why = f"the baseline was the run {earlier.id}: the two did not take turns"
    speed.not_measured |= {"relative_ci": why, "noise_floor": why}
    found = [(speed.not_measured, "relative"), (memory.not_measured, "relative")]
    if speed.flop_limit_relative:
        speed.share_of_limit = speed.relative / speed.flop_limit_relative
        found.append((speed.not_measured, "share_of_limit"))
    for reasons, name in found:
        reasons.pop(name, None)


def _measured(report: Report) -> tuple[Speed, Memory, Fingerprint]:
    if report.speed is None or report.memory is None or report.fingerprint is None:
        raise HarnessError(f"The run {report.id} holds no measurements of speed and memory.")
    return report.speed, report.memory, report.fingerprint
