"""Sentences on what a search does not show, and what it would take to know more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.api.metric import Score
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.reporting.recommendation import Recommendation
from harness.reporting.scores import RunScores, read_scores
from harness.reporting.summary import Group, RecipeRow
from harness.reporting.wording import heading
from harness.searching.needs import Needs
from harness.spec.run_spec import BASELINE
from harness.statistics.separation import MOST_SEEDS, Separation, separation


def outlook(
    group: Group, recommendation: Recommendation, runs: Sequence[StoredRun], needs: Needs
) -> Iterator[str]:
    """Yield sentences on the two best recipes, and on the quality that is needed.

    Args:
        group: the finals.
        recommendation: the recommendation for the group.
        runs: the runs of the finals.
        needs: what a recipe must reach.
    """
    metric = recommendation.needs.metric
    name = heading(metric)
    rows = _by_quality([row for row in group.rows if row.recipe != BASELINE], metric)
    if rows:
        best, second = rows[0].recipe, rows[1].recipe if len(rows) > 1 else BASELINE
        scores = _scores(runs, (best, second), metric)
        yield _between(best, second, name, _separate(*scores) if scores else None)
    if recommendation.chosen in (None, BASELINE) and rows:
        best = rows[0].recipe
        scores = _scores(runs, (best, BASELINE), metric)
        if scores:
            yield from _enough(best, name, needs.min_quality, scores)


def _between(best: str, second: str, name: str, found: Separation | None) -> str:
    two = f"the two best in {name}, {best} and {second}"
    if second == BASELINE:
        two = f"{best} from full fine-tuning in {name}"
    if found is None:
        return f"One seed cannot separate {two}: train two or more."
    if found.is_shown:
        return f"The finals separate {two}: by {abs(found.difference.value):.2g}."
    return f"The finals do not separate {two}. {_needed(found)}"


def _enough(
    recipe: str, name: str, share: float, scores: tuple[list[Score], list[Score]]
) -> Iterator[str]:
    if len(scores[0]) < 2 or not scores[0][0].higher_is_better:
        return
    found = _separate(*scores, factor=share)
    if found is None or found.is_shown:
        return
    side = "more" if found.difference.value > 0 else "less"
    yield (
        f"{recipe} keeps {side} than {100 * share:g} % of full fine-tuning's {name} by its mean, "
        f"but its interval holds both. {_needed(found)}"
    )


def _needed(found: Separation) -> str:
    """Return a sentence on the seeds or examples that a difference of this size needs."""
    size = f"A difference of {abs(found.difference.value):.2g}"
    if found.difference.value == 0:
        return "Their means are equal, so that no number of seeds is known to separate them."
    if found.seeds is not None:
        return f"{size} would take about {found.seeds} seeds to show."
    if found.examples is None:
        return f"{size} would take more than {MOST_SEEDS} seeds to show."
    return (
        f"{size} is too small for this test split, however many seeds are trained: it would take "
        f"about {found.examples:,} test examples."
    )


def _separate(first: list[Score], second: list[Score], *, factor: float = 1) -> Separation | None:
    if len(first) < 2:
        return None
    return separation(first, second, factor=factor)


def _scores(
    runs: Sequence[StoredRun], recipes: tuple[str, str], metric: str
) -> tuple[list[Score], list[Score]] | None:
    """Return the scores of two recipes on the seeds that both have; None if they cannot be read."""
    by_recipe: dict[str, dict[int, RunScores]] = {recipe: {} for recipe in recipes}
    try:
        for run in runs:
            report = run.report
            if report.recipe in by_recipe and report.status == "ok":
                by_recipe[report.recipe][report.seed] = read_scores(run.folder, report, [metric])
    except HarnessError:
        return None
    first, second = (by_recipe[recipe] for recipe in recipes)
    seeds = sorted(first.keys() & second.keys())
    pairs = [(first[seed].scores.get(metric), second[seed].scores.get(metric)) for seed in seeds]
    good = [(one, other) for one, other in pairs if one is not None and other is not None]
    return ([one for one, _ in good], [other for _, other in good]) if good else None


def _by_quality(rows: Sequence[RecipeRow], metric: str) -> list[RecipeRow]:
    """Return the rows that have a metric, the best first."""
    good = [row for row in rows if metric in row.quality]

    def rank(row: RecipeRow) -> float:
        quality = row.quality[metric]
        return -quality.value.value if quality.higher_is_better else quality.value.value

    return sorted(good, key=rank)
