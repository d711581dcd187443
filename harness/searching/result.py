"""Result of a search from what lies in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import HarnessError
from harness.reporting.collection import Reports
from harness.reporting.entry import load_reports, recommend
from harness.reporting.recommendation import Recommendation
from harness.reporting.summary import Group
from harness.searching.baseline import Baseline
from harness.searching.candidates import Candidate
from harness.searching.course import FINALS, Course
from harness.searching.fresh_runs import FreshRuns
from harness.searching.needs import Needs
from harness.searching.outlook import outlook
from harness.searching.record import CandidateRow, Finalist, SearchResult
from harness.searching.runs import Runs
from harness.searching.space import Space
from harness.searching.trials import candidate_of
from harness.spec.run_spec import BASELINE
from harness.spec.settings import nested_settings

FILE = "result.json"


def result_of(
    course: Course,
    baseline: Baseline,
    fresh: FreshRuns,
    space: Space,
    given: Mapping[str, Any],
) -> SearchResult:
    """Return the record of a search that has ended.

    Args:
        course: the search.
        baseline: full fine-tuning.
        fresh: the runs of the finals.
        space: the points that it chose from.
        given: the settings that the user gave, for the commands.
    """
    runs, base, steps = course.runs, course.runs.base, baseline.track.steps
    result = SearchResult(
        folder=course.folder.as_posix(),
        backbone=base.backbone,
        task=base.task,
        needs=course.needs,
        metric=runs.metric.name,
        budget_seconds=course.budget.seconds,
        spent_seconds=round(course.budget.spent, 1),
        rungs=list(steps),
        space=space.size,
        search_seed=base.seed,
        fresh_seeds=fresh.seeds,
        baseline=[_row(course, baseline, candidate) for candidate in baseline.candidates],
        notes=list(fresh.notes),
    )
    for trial in course.trials.looked_at:
        rejected, failed = trial.notes.get("rejected"), trial.notes.get("failed")
        candidate = candidate_of(trial)
        row = CandidateRow(recipe=candidate.recipe, rejected=rejected, failed=failed)
        if not rejected:
            row = _row(course, baseline, candidate).model_copy(update={"failed": failed})
        costs = course.trials.costs(candidate)
        row.speed_limit, row.memory = costs.speed or None, costs.memory
        result.candidates.append(row)
    tried = [*baseline.candidates, *course.trials.trained]
    for finalist in fresh.finalists:
        result.finalists.append(
            Finalist(
                recipe=finalist.recipe,
                learning_rate=finalist.learning_rate(base, runs.plugins),
                rates_tried=sum(c.recipe == finalist.recipe for c in tried),
                command=command_of(finalist, runs, given),
            )
        )
    if fresh.finalists:
        _add_finals(result, course, fresh)
    return result


def command_of(candidate: Candidate, runs: Runs, given: Mapping[str, Any]) -> str:
    """Return the command that trains a candidate.

    Args:
        candidate: the candidate.
        runs: the runs, for the backbone, the task and the learning rate.
        given: the settings that the user gave.
    """
    base = runs.base
    words = ["harness", "run", "--backbone", base.backbone, "--compressor", candidate.recipe]
    words += ["--task", base.task]
    for file in runs.plugins.files:
        words += ["--plugin", str(file.path)]
    settings = {**dict(_dotted(nested_settings(given)))}
    if candidate.octave:
        rate = candidate.learning_rate(base, runs.plugins)
        settings["train.tuned_learning_rate"] = f"{rate:g}"
    if preset := settings.pop("preset", None):
        words += ["--preset", preset]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def _row(course: Course, baseline: Baseline, candidate: Candidate) -> CandidateRow:
    scores = course.scores(candidate, baseline.track.steps)
    return CandidateRow(
        recipe=candidate.recipe,
        learning_rate=candidate.learning_rate(course.runs.base, course.runs.plugins),
        scores=scores,
        share=baseline.track.share(scores),
    )


def _add_finals(result: SearchResult, course: Course, fresh: FreshRuns) -> None:
    """Add the summary of the finals, the recommendation and what is not known.

    On another device a run may have another id than the one that was planned for it.
    """
    try:
        reports = load_reports(course.folder / FINALS)
    except HarnessError as error:
        result.notes.append(error.message)
        return
    here = course.runs.executor.here
    recipes = {finalist.recipe for finalist in result.finalists}
    runs = tuple(
        run
        for run in reports
        if (run.folder.name in fresh.ids or not here)
        and run.report.recipe in recipes
        and run.report.seed in result.fresh_seeds
    )
    summary = Reports(reports.folder, runs).summarize()
    result.summary = summary
    if not summary.metrics or not summary.groups:
        return
    (group,) = summary.groups
    result.recommendation = _recommendation(result, course.needs, group)
    chosen = result.recommendation.chosen
    result.command = next((f.command for f in result.finalists if f.recipe == chosen), None)
    result.to_know_more += outlook(group, result.recommendation, runs, course.needs)
    if untried := result.space - len(result.candidates):
        result.to_know_more.append(
            f"The search looked at {len(result.candidates)} of {result.space:,} combinations of "
            f"recipes, options and learning rates; a larger --budget goes on with the other "
            f"{untried:,}."
        )


def _recommendation(result: SearchResult, needs: Needs, group: Group) -> Recommendation:
    full = next((row.memory_bytes for row in group.rows if row.recipe == BASELINE), None)
    most = round(needs.max_memory * full) if needs.max_memory and full else None
    assert result.summary
    (recommended,) = recommend(
        result.summary,
        min_quality=needs.min_quality,
        max_memory_bytes=most,
        min_speed=needs.min_speed,
    )
    return recommended


def _dotted(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of nested groups as ``--set`` takes them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{before}{name}.")
        elif isinstance(value, bool):
            yield f"{before}{name}", str(value).lower()
        else:
            yield f"{before}{name}", str(value)
