"""Aggregate runs into a summary: average over seeds, and compare with the baseline."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from harness.records.collector import without_collector
from harness.records.measurements import Fingerprint
from harness.records.profile import Profile
from harness.records.run_folder import StoredRun
from harness.reporting.answer import answer
from harness.reporting.members import Members
from harness.reporting.notes import notes
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.pareto import pareto_front
from harness.reporting.profiled_costs import add_profiled_costs
from harness.reporting.row import make_row
from harness.reporting.settings_difference import settings_difference
from harness.reporting.summary import Estimate, Front, Group, Quality, RecipeRow, Summary
from harness.spec.run_spec import BASELINE
from harness.statistics.holm import holm

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
"""Metrics in the order in which they are shown; metrics of plugins follow by name."""

_SAME_MEMORY = 0.01
"""Relative difference up to which peaks of memory are ties; they vary as much between runs."""

OnProgress = Callable[[], None]


def summarize(
    runs: Sequence[StoredRun],
    comparisons: Comparisons,
    metrics: Sequence[str] | None = None,
    on_progress: OnProgress = lambda: None,
    front: Front = "training",
    profile: Profile | None = None,
    baseline: str = BASELINE,
) -> Summary:
    """Average over seeds and compare with the baseline, group by group.

    Args:
        runs: runs of any recipes, tasks and backbones.
        comparisons: computes the comparisons, or takes them from its cache.
        metrics: names of the metrics to show; by default all that any run has.
        on_progress: is called after each recipe.
        front: the costs of the Pareto fronts.
        profile: has the speed and memory of recipes whose runs measured neither.
        baseline: the recipe that quality is compared with. Speed and memory are relative to full
            fine-tuning's in any case.
    """
    present = {name for run in runs for name in run.report.quality}
    builtin = [name for name in METRICS if name in present]
    shown = [*builtin, *sorted(present - set(builtin))] if metrics is None else list(metrics)
    by_group = list(grouped(runs).values())
    members = [Members.of(group_runs, shown, baseline) for group_runs in by_group]
    comparisons.prepare([group_members.requests for group_members in members], on_progress)
    with without_collector():
        groups = [_group(each, comparisons, shown, front, profile) for each in members]
    _tell_apart([(group, runs[0]) for group, runs in zip(groups, by_group, strict=True)])
    return Summary(metrics=shown, groups=groups)


def grouped(runs: Iterable[StoredRun]) -> dict[tuple[str, str, str], list[StoredRun]]:
    """Return the runs by task, backbone and settings, sorted by these."""
    groups = defaultdict(list)
    for run in runs:
        report = run.report
        groups[report.task, report.backbone, report.settings or ""].append(run)
    return dict(sorted(groups.items()))


def _group(
    members: Members,
    comparisons: Comparisons,
    metrics: Sequence[str],
    front: Front,
    profile: Profile | None,
) -> Group:
    rows = [
        make_row(runs, request, members.has_baseline, comparisons)
        for runs, request in zip(members.by_recipe, members.requests, strict=True)
    ]
    first = members.by_recipe[0][0].report
    good = [run.report for run in members.runs if run.report.data]
    noise_floors = [report.speed.noise_floor for report in good if report.speed]
    group = Group(
        backbone=first.backbone,
        task=first.task,
        settings=first.settings,
        test_examples=sorted(
            {report.data.test for report in good if report.data and report.status == "ok"}
        ),
        noise_floor=max((floor for floor in noise_floors if floor), default=None),
        fingerprints=_distinct(report.fingerprint for report in good),
        front=front,
        baseline=members.requests[0].baseline,
        rows=rows,
    )
    if profile is not None:
        add_profiled_costs(group, profile)
    _adjust(rows, metrics)
    _mark_front(group, metrics)
    group.answer = answer(group, metrics)
    group.notes += notes(group, members)
    return group


def _tell_apart(groups: Sequence[tuple[Group, StoredRun]]) -> None:
    """Add a note on the different settings of groups that share backbone and task."""
    for (earlier, its_run), (group, run) in pairwise(groups):
        if earlier.title == group.title:
            different = settings_difference(its_run.folder, run.folder)
            group.notes.append(
                f"Not averaged or compared with the group above: other settings{different}."
            )


def _adjust(rows: Sequence[RecipeRow], metrics: Sequence[str]) -> None:
    """Adjust the p-values of each metric for the number of recipes (Holm's method)."""
    for name in metrics:
        by_recipe = {row.recipe: row.quality[name] for row in rows if name in row.quality}
        tested = {r: q.p_value for r, q in by_recipe.items() if q.p_value is not None}
        if len(tested) > 1:
            for recipe, p_value in holm(tested).items():
                by_recipe[recipe].p_value = p_value


def _mark_front(group: Group, metrics: Sequence[str]) -> None:
    """Mark the recipes on the Pareto front of the chosen costs and the first metric."""
    good = [row for row in group.rows if row.status == "ok"]
    if not good or len(group.fingerprints) > 1:
        return
    name = next((name for name in metrics if any(name in row.quality for row in good)), None)
    costs = {row.recipe: _costs(row, group.front) for row in good}
    measured = [row for row in good if name in row.quality and costs[row.recipe]]
    if name is None or len(measured) < 2:
        return
    group.front_metric = name
    # Intervals of paired differences are narrower: the difficulty of the examples cancels out.
    paired = all(row.recipe == group.baseline or row.quality[name].difference for row in measured)
    front = pareto_front(
        {row.recipe: [*costs[row.recipe], _goodness(row.quality[name], paired)] for row in measured}
    )
    for row in measured:
        row.on_front = row.recipe in front


def _costs(row: RecipeRow, front: Front) -> list[Estimate]:
    """Return speed and memory as objectives, of which more is better; empty if one is unknown."""
    if front == "training":
        speed, size = row.speed, row.memory_bytes
    else:
        own = row.inference
        speed, size = (own.latency, own.memory_bytes) if own else (None, None)
    if speed is None or not size:
        return []
    smallness = -math.log(size)
    half = _SAME_MEMORY / 2
    return [speed, Estimate(value=smallness, low=smallness - half, high=smallness + half)]


def _goodness(quality: Quality, paired: bool) -> Estimate:
    """Return the quality as an objective, of which more is better."""
    goodness = (quality.difference or Estimate(value=0)) if paired else quality.value
    return goodness if quality.higher_is_better else goodness.negated


def _distinct(fingerprints: Iterable[Fingerprint | None]) -> list[Fingerprint]:
    distinct: list[Fingerprint] = []
    for fingerprint in fingerprints:
        if fingerprint and fingerprint not in distinct:
            distinct.append(fingerprint)
    return distinct
