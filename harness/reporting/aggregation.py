"""From runs to a summary: seeds averaged, recipes compared with full fine-tuning."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from harness.reporting.folder import StoredRun
from harness.reporting.front import pareto_front
from harness.reporting.notes import notes, unlike_settings
from harness.reporting.pairing import Comparisons, Paired, Seed
from harness.reporting.report import Fingerprint, Memory, Speed
from harness.reporting.summary import Estimate, Group, Quality, Row, Summary
from harness.spec import BASELINE

METRICS = (
    "rouge1",
    "rouge2",
    "rougeL",
    "bleu",
    "bertscore",
    "summac_conv",
    "summac_zs",
    "chrf",
    "bleu1_precision",
    "bleu4_precision",
)
"""The order in which metrics are shown; those of plugins follow."""

_SAME_MEMORY = 0.01
"""Peaks that differ by no more than this share are tied: they vary by as much between runs."""

Tick = Callable[[], None]


def summarize(
    runs: Sequence[StoredRun],
    comparisons: Comparisons,
    metrics: Sequence[str] | None = None,
    tick: Tick = lambda: None,
) -> Summary:
    """Average over seeds and compare with full fine-tuning, group by group.

    Args:
        runs: of any recipes, tasks and backbones.
        comparisons: what compares.
        metrics: names; all that any run has by default.
        tick: called after each recipe.
    """
    had = {name for run in runs for name in run.report.quality}
    known = [name for name in METRICS if name in had]
    chosen = [*known, *sorted(had - set(known))] if metrics is None else list(metrics)
    by_group = list(grouped(runs).values())
    groups = [_group(alike, comparisons, chosen, tick) for alike in by_group]
    _tell_apart([(group, alike[0]) for group, alike in zip(groups, by_group, strict=True)])
    return Summary(metrics=chosen, groups=groups)


def grouped(runs: Iterable[StoredRun]) -> dict[tuple[str, str, str], list[StoredRun]]:
    """Return the runs that share task, backbone and settings, in the order of these."""
    found = defaultdict(list)
    for run in runs:
        report = run.report
        found[report.task, report.backbone, report.settings or ""].append(run)
    return dict(sorted(found.items()))


def _group(
    runs: Sequence[StoredRun], comparisons: Comparisons, metrics: Sequence[str], tick: Tick
) -> Group:
    first = runs[0].report
    by_recipe: dict[str, dict[int, StoredRun]] = defaultdict(dict)
    older = 0
    for run in sorted(runs, key=lambda run: (run.report.status == "ok", run.report.started)):
        older += run.report.seed in by_recipe[run.report.recipe]
        by_recipe[run.report.recipe][run.report.seed] = run
    full = {s: r for s, r in by_recipe.get(BASELINE, {}).items() if r.report.status == "ok"}
    rows = []
    for recipe in sorted(by_recipe, key=lambda recipe: (recipe != BASELINE, recipe)):
        baseline = full if recipe != BASELINE else {}
        rows.append(_row(list(by_recipe[recipe].values()), baseline, comparisons, metrics))
        tick()
    good = [run.report for runs in by_recipe.values() for run in runs.values() if run.report.data]
    floors = [report.speed.noise_floor for report in good if report.speed]
    group = Group(
        backbone=first.backbone,
        task=first.task,
        settings=first.settings,
        test_examples=sorted(
            {report.data.test for report in good if report.data and report.status == "ok"}
        ),
        noise_floor=max((floor for floor in floors if floor), default=None),
        fingerprints=_distinct(report.fingerprint for report in good),
        rows=rows,
    )
    _adjust(rows, metrics)
    _mark_front(group, metrics)
    group.notes = list(notes(group, older))
    return group


def _tell_apart(groups: Sequence[tuple[Group, StoredRun]]) -> None:
    """Note in what settings groups on one backbone and task differ."""
    for (earlier, its_run), (group, run) in pairwise(groups):
        if earlier.title == group.title:
            unlike = unlike_settings(its_run.folder, run.folder)
            group.notes.append(
                f"Not averaged or compared with the group above: other settings{unlike}."
            )


def _row(
    runs: Sequence[StoredRun],
    full: dict[int, StoredRun],
    comparisons: Comparisons,
    metrics: Sequence[str],
) -> Row:
    runs = sorted(runs, key=lambda run: run.report.seed)
    good = [run for run in runs if run.report.status == "ok"]
    reports = [run.report for run in good]
    last = max((run.report for run in runs), key=lambda report: report.started)
    row = Row(
        recipe=last.recipe,
        status="ok" if good else last.status,
        seeds=[report.seed for report in reports],
        failures={
            run.report.seed: f"{run.report.status} in {run.report.failure.phase}"
            for run in runs
            if run.report.failure
        },
        runs=[report.id for report in reports],
        data_sha256=[report.data.sha256 for report in reports if report.data],
        processes=sorted({report.training.processes for report in reports if report.training}),
    )
    if not good:
        return row
    if len(decoders := {report.decoding for report in reports}) == 1:
        row.decoding = decoders.pop()
    if parameters := reports[0].parameters:
        row.trainable = parameters.trainable
        row.trainable_pct = parameters.trainable_pct_of_original
    speeds = [report.speed for report in reports if report.speed]
    row.speed = _mean_speed([(s.relative, s.relative_ci) for s in speeds])
    row.tokens_per_s = fmean(s.tokens_per_s for s in speeds) if speeds else None
    memories = [report.memory for report in reports if report.memory]
    row.memory_bytes = max((memory.peak_bytes for memory in memories), default=None)
    shares = [memory.relative for memory in memories if memory.relative is not None]
    row.memory_relative = fmean(shares) if shares else None
    if speeds and row.speed is None:
        row.not_measured["speed"] = _why_no_ratio(speeds[0], speeds[0])
    if speeds and memories and not shares:
        row.not_measured["memory_relative"] = _why_no_ratio(memories[0], speeds[0])
    _add_quality(row, good, full, comparisons, metrics)
    return row


def _add_quality(
    row: Row,
    runs: Sequence[StoredRun],
    full: dict[int, StoredRun],
    comparisons: Comparisons,
    metrics: Sequence[str],
) -> None:
    """Set the metrics that all seeds have."""
    present = [name for name in metrics if all(name in run.report.quality for run in runs)]
    seeds = [Seed(run, full.get(run.report.seed)) for run in runs]
    outcome = comparisons.of(seeds, present)
    alone = [seed.run.report.seed for seed in seeds if full and not seed.baseline]
    row.not_compared = outcome.reason
    if alone and not row.not_compared:
        row.not_compared = f"full fine-tuning lacks seed {', '.join(map(str, alone))}"
    for name in present:
        values = [run.report.quality[name] for run in runs]
        if len({value.signature for value in values}) > 1:
            outcome.missing[name] = "the seeds' values were computed in unlike ways"
            continue
        paired = outcome.metrics.get(name, Paired())
        value = Estimate(value=fmean(value.value for value in values))
        if len(values) == 1 and values[0].ci:
            value.low, value.high = values[0].ci
        row.quality[name] = Quality(
            value=paired.value or value,
            signature=values[0].signature,
            higher_is_better=values[0].higher_is_better,
            difference=paired.difference,
            retention=paired.retention,
            floor=paired.floor,
            retention_above_floor=paired.retention_above_floor,
            p_value=paired.p_value,
        )
    row.missing = outcome.missing
    row.no_floor = outcome.no_floor


def _mean_speed(
    ratios: Sequence[tuple[float | None, tuple[float, float] | None]],
) -> Estimate | None:
    """Return the geometric mean of the runs' relative speeds.

    The runs' intervals are combined as those of independent measurements of one quantity. Where
    the runs differ by more than these allow, the interval is wider by the root of what they differ
    by over what was expected (Birge 1932).
    """
    measured = [(relative, ci) for relative, ci in ratios if relative is not None]
    if not measured:
        return None
    logs = [math.log(relative) for relative, _ in measured]
    mean = fmean(logs)
    halves = [math.log(ci[1] / ci[0]) / 2 for _, ci in measured if ci and ci[0] > 0]
    if len(halves) < len(measured):
        return Estimate(value=math.exp(mean))
    half = math.sqrt(sum(half**2 for half in halves)) / len(halves)
    if len(logs) > 1 and all(halves):
        # Half of a 95 % interval is about two standard errors.
        chi2 = sum((2 * (log - mean) / half) ** 2 for log, half in zip(logs, halves, strict=True))
        half *= math.sqrt(max(1.0, chi2 / (len(logs) - 1)))
    return Estimate(value=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))


def _why_no_ratio(measured: Speed | Memory, speed: Speed) -> str:
    """Return the reason; in reports of before reasons were kept, the baseline's name is one."""
    return measured.not_measured.get("relative", f"no baseline: {speed.baseline}")


def _adjust(rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Adjust p-values for the number of recipes that are compared by one metric."""
    for name in metrics:
        by_recipe = {row.recipe: row.quality[name] for row in rows if name in row.quality}
        tested = {r: q.p_value for r, q in by_recipe.items() if q.p_value is not None}
        if len(tested) > 1:
            from harness.statistics import holm

            for recipe, p_value in holm(tested).items():
                by_recipe[recipe].p_value = p_value


def _mark_front(group: Group, metrics: Sequence[str]) -> None:
    """Mark the recipes that no other beats in speed, memory and the first metric."""
    good = [row for row in group.rows if row.status == "ok"]
    if not good or len(group.fingerprints) > 1:
        return
    name = next((name for name in metrics if any(name in row.quality for row in good)), None)
    measured = [r for r in good if name in r.quality and r.speed and r.memory_bytes]
    if name is None or len(measured) < 2:
        return
    group.front_metric = name
    # Against full fine-tuning the difficulty of the test examples drops out of the intervals.
    paired = all(row.recipe == BASELINE or row.quality[name].difference for row in measured)
    front = pareto_front({row.recipe: _point(row, row.quality[name], paired) for row in measured})
    for row in measured:
        row.on_front = row.recipe in front


def _point(row: Row, quality: Quality, paired: bool) -> list[Estimate]:
    """Return speed, smallness and quality, of all of which more is better."""
    assert row.speed
    assert row.memory_bytes
    small = -math.log(row.memory_bytes)
    half = _SAME_MEMORY / 2
    good = (quality.difference or Estimate(value=0)) if paired else quality.value
    if not quality.higher_is_better:
        good = Estimate(
            value=-good.value,
            low=None if good.high is None else -good.high,
            high=None if good.low is None else -good.low,
        )
    return [row.speed, Estimate(value=small, low=small - half, high=small + half), good]


def _distinct(fingerprints: Iterable[Fingerprint | None]) -> list[Fingerprint]:
    found: list[Fingerprint] = []
    for fingerprint in fingerprints:
        if fingerprint and fingerprint not in found:
            found.append(fingerprint)
    return found
