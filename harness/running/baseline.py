"""Comparison of a run with an earlier run of full fine-tuning, measured in the same way."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.measurement.inference import without_baseline
from harness.records.measurements import Fingerprint, Memory, Speed
from harness.records.reasons import explain_nulls
from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.spec.run_spec import BASELINE
from harness.spec.setting_groups import ProbeSettings


def baseline_folder(settings: ProbeSettings) -> Path | None:
    """Return the folder of the earlier run that ``probe.baseline`` names, or None."""
    return None if settings.baseline in ("probe", "off") else Path(settings.baseline)


def read_baseline(folder: Path) -> Report:
    """Read the report of an earlier run of full fine-tuning.

    Raises:
        HarnessError: there is no report, or the run cannot be a baseline.
    """
    earlier = read_report(folder)
    if earlier.recipe != BASELINE or earlier.status != "ok":
        raise HarnessError(
            f"The run {earlier.id} cannot be a baseline: it is {earlier.recipe} and ended as "
            f"{earlier.status}.",
            f"Name a run of {BASELINE} with status ok, or leave probe.baseline out to measure one.",
        )
    return earlier


def apply_baseline(report: Report, folder: Path) -> None:
    """Fill in relative speed and memory from an earlier run of full fine-tuning.

    Args:
        report: a report with speed, memory and fingerprint; gets the ratios.
        folder: the folder of the earlier run.

    Raises:
        HarnessError: the two runs were not measured in the same way.
    """
    earlier = read_baseline(folder)
    speed, memory, fingerprint = _measured(report)
    earlier_speed, earlier_memory, earlier_fingerprint = _measured(earlier)
    differences = [
        f"{name} ({getattr(earlier_fingerprint, name)} there, {getattr(fingerprint, name)} here)"
        for name in Fingerprint.model_fields
        if getattr(fingerprint, name) != getattr(earlier_fingerprint, name)
    ]
    if speed.schedule_sha256 != earlier_speed.schedule_sha256:
        differences.append("the batches that were timed")
    if differences:
        raise HarnessError(
            f"The run {earlier.id} cannot be the baseline of this one: they differ in "
            f"{', '.join(differences)}.",
            "Leave probe.baseline out to measure a baseline here.",
        )
    speed.relative = speed.tokens_per_s / earlier_speed.tokens_per_s
    speed.baseline = f"run {earlier.id}; not interleaved, so there is no interval"
    memory.relative = memory.peak_bytes / earlier_memory.peak_bytes
    if speed.flop_limit_relative:
        speed.share_of_limit = speed.relative / speed.flop_limit_relative
    reason = f"the baseline was the run {earlier.id}: the two did not take turns"
    explain_nulls(speed, reason, "relative", "relative_ci", "noise_floor")
    explain_nulls(memory, reason, "relative")
    if speed.share_of_limit is not None:
        speed.not_measured.pop("share_of_limit", None)
    _relate_decoding(report, earlier)


def _relate_decoding(report: Report, earlier: Report) -> None:
    """Fill in relative memory and size of decoding; windows that took no turns give no ratio."""
    own, full = report.inference, earlier.inference
    if own is None:
        return
    without_baseline(own, f"{earlier.id}, beside which decoding was not timed")
    if full is None or (own.search, own.sources_sha256) != (full.search, full.sources_sha256):
        return
    own.memory.relative = own.memory.peak_bytes / full.memory.peak_bytes
    own.size.model_relative = own.size.model_bytes / full.size.model_bytes
    own.size.trained_relative = own.size.trained_bytes / full.size.trained_bytes
    explain_nulls(own.memory, "", "relative")
    explain_nulls(own.size, "", "model_relative", "trained_relative")


def _measured(report: Report) -> tuple[Speed, Memory, Fingerprint]:
    if report.speed is None or report.memory is None or report.fingerprint is None:
        raise HarnessError(f"The run {report.id} holds no measurements of speed and memory.")
    return report.speed, report.memory, report.fingerprint
