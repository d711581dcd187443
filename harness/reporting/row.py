"""Compute a recipe's row: average over its seeds, and compare with the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from harness.records.measurements import Memory, Speed
from harness.records.reasons import explain_nulls
from harness.records.report import Training, Value
from harness.records.run_folder import StoredRun
from harness.reporting.inference_row import inference_row
from harness.reporting.mean_speed import mean_speed
from harness.reporting.outcome import Paired, Request
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.summary import Estimate, Quality, RecipeRow
from harness.reporting.wording import spoken


def make_row(
    runs: Sequence[StoredRun], request: Request, has_baseline: bool, comparisons: Comparisons
) -> RecipeRow:
    """Average a recipe's seeds.

    Args:
        runs: one run per seed, including failed ones.
        request: the request to compare the runs that ended well.
        has_baseline: whether the group has a good run of the baseline.
        comparisons: computes the comparison, or takes it from its cache.
    """
    good = [run for run in runs if run.report.status == "ok"]
    reports = [run.report for run in good]
    last = max((run.report for run in runs), key=lambda report: report.started)
    row = RecipeRow(
        recipe=last.recipe,
        status="ok" if good else last.status,
        seeds=[report.seed for report in reports],
        failures={
            run.report.seed: f"{run.report.status} in {run.report.failure.phase}"
            for run in runs
            if run.report.failure
        },
        runs=[report.id for report in reports],
        folders=[run.name for run in good],
        data_sha256=[report.data.sha256 for report in reports if report.data],
        processes=sorted({count for r in reports if r.training for count in _counts(r.training)}),
        process_costs=next((r.process_costs for r in reports if r.process_costs), None),
    )
    if not good:
        return row
    if len(decoders := {report.decoding for report in reports}) == 1:
        row.decoding = decoders.pop()
    if parameters := reports[0].parameters:
        row.trainable = parameters.trainable
        row.trainable_pct = parameters.trainable_pct_of_original
    speeds = [report.speed for report in reports if report.speed]
    row.speed = mean_speed([(s.relative, s.relative_ci) for s in speeds])
    row.tokens_per_s = fmean(s.tokens_per_s for s in speeds) if speeds else None
    memories = [report.memory for report in reports if report.memory]
    row.memory_bytes = max((memory.peak_bytes for memory in memories), default=None)
    shares = [memory.relative for memory in memories if memory.relative is not None]
    row.memory_relative = fmean(shares) if shares else None
    row.inference = inference_row([r.inference for r in reports if r.inference])
    if reason := next(iter(filter(None, (r.not_measured.get("inference") for r in reports))), None):
        explain_nulls(row, reason, "inference")
    if speeds:
        explain_nulls(row, _why_no_ratio(speeds[0], speeds[0]), "speed")
    elif reason := reports[0].not_measured.get("speed"):
        explain_nulls(row, reason, "speed", "memory_relative")
    if speeds and memories:
        explain_nulls(row, _why_no_ratio(memories[0], speeds[0]), "memory_relative")
    _add_quality(row, request, has_baseline, comparisons)
    return row


def _counts(training: Training) -> list[int]:
    """Return the numbers of processes that took the steps of a training."""
    return [training.processes, *training.process_counts.values()]


def _add_quality(
    row: RecipeRow, request: Request, has_baseline: bool, comparisons: Comparisons
) -> None:
    """Set the quality by each metric that all seeds have, and the reasons for missing parts."""
    runs = [seed.run for seed in request.seeds]
    outcome = comparisons.of(request)
    is_baseline = row.recipe == request.baseline
    alone = [s.run.report.seed for s in request.seeds if not s.baseline] if has_baseline else []
    row.not_compared = outcome.reason
    if alone and not is_baseline and not row.not_compared:
        lacking = ", ".join(map(str, alone))
        row.not_compared = f"{spoken(request.baseline)} lacks seed {lacking}"
    for name in request.metrics:
        values = [run.report.quality[name] for run in runs]
        if any(value.signature != values[0].signature for value in values):
            outcome.missing[name] = "the seeds' values were computed in different ways"
            continue
        paired = outcome.metrics.get(name, Paired())
        value = paired.value or _mean_of_reports(values)
        row.quality[name] = Quality(
            value=value,
            signature=values[0].signature,
            higher_is_better=values[0].higher_is_better,
            difference=paired.difference,
            retention=paired.retention,
            floor=paired.floor,
            retention_above_floor=paired.retention_above_floor,
            p_value=paired.p_value,
        )
    row.missing = outcome.missing
    row.no_share = outcome.no_share
    row.no_floor = outcome.no_floor


def _mean_of_reports(values: Sequence[Value]) -> Estimate:
    """Return the mean over seeds; one seed keeps the interval of its report."""
    if len(values) == 1 and (ci := values[0].ci):
        return Estimate(value=values[0].value, low=ci[0], high=ci[1], seeds=1)
    return Estimate(value=fmean(value.value for value in values))


def _why_no_ratio(measured: Speed | Memory, speed: Speed) -> str:
    """Return why a relative number is missing; old reports have only the baseline's name."""
    return measured.not_measured.get("relative", f"no baseline: {speed.baseline}")
