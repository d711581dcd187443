"""Compare the recipes of a group with the baseline; all share one matrix of draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.api.metric import Score
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.reporting.lead_baseline import score_lead_baseline
from harness.reporting.outcome import Outcome, Paired, Request
from harness.reporting.scores import RunScores, read_scores
from harness.reporting.summary import Estimate
from harness.reporting.wording import spoken
from harness.statistics.intervals import Comparison, compare, mean_interval
from harness.statistics.resampling import Bootstrap
from harness.statistics.seed_mean import Interval

_lead_scores: dict[tuple[str, ...], RunScores] = {}
"""Cache of the lead baseline's scores, for groups that share test examples."""
_MOST_LEAD_SCORES = 16
"""Number of entries that the cache holds."""


def compare_group(requests: Sequence[Request]) -> list[Outcome | str]:
    """Compare the recipes of a group.

    Args:
        requests: one for each recipe.

    Returns:
        An outcome for each request; a string is the reason why a recipe could not be compared.
    """
    group = _Group(requests)
    outcomes: list[Outcome | str] = []
    for request in requests:
        try:
            outcomes.append(group.compare(request))
        except HarnessError as error:
            outcomes.append(f"quality is not compared, as {error.message.rstrip('.')}")
    return outcomes


class _Group:
    """Compares the recipes of a group; keeps the scores and draws that they share."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._metrics = tuple(dict.fromkeys(name for r in requests for name in r.metrics))
        self._bootstrap = Bootstrap()
        self._read: dict[Path, RunScores] = {}
        self._resample_together(requests)

    def compare(self, request: Request) -> Outcome:
        """Compare one recipe with the baseline.

        Raises:
            HarnessError: predictions are missing or damaged.
        """
        pairs = [(seed.run, seed.baseline) for seed in request.seeds if seed.baseline]
        outcome = Outcome()
        if not _is_needed(request):
            return outcome
        all_seeds = [self._scores(seed.run) for seed in request.seeds]
        recipe = [self._scores(run) for run, _ in pairs]
        others = [self._scores(baseline) for _, baseline in pairs]
        whom = spoken(request.baseline)
        outcome.reason = _why_not_comparable(pairs, recipe, others, whom)
        shared = all(scores.ids == all_seeds[0].ids for scores in all_seeds)
        is_compared = bool(pairs) and not outcome.reason
        lead = self._lead_baseline(pairs[0][1], shared) if is_compared else None
        for name in request.metrics:
            paired = outcome.metrics[name] = Paired()
            try:
                if len(all_seeds) > 1:
                    mean = mean_interval(
                        _named(name, all_seeds, whom),
                        shared_examples=shared,
                        bootstrap=self._bootstrap,
                    )
                    paired.value = _estimate(mean, len(all_seeds))
                if lead is None:
                    continue
                recipe_scores = _named(name, recipe, whom)
                comparison = compare(
                    recipe_scores,
                    _named(name, others, whom),
                    lead.scores.get(name),
                    shared_examples=shared,
                    bootstrap=self._bootstrap,
                )
            except ValueError as error:
                outcome.missing[name] = str(error)
                continue
            _fill(outcome, name, comparison, recipe_scores[0].higher_is_better, lead, whom)
        return outcome

    def _resample_together(self, requests: Sequence[Request]) -> None:
        """Resample all scores of the group's most frequent test examples at once."""
        by_ids: dict[tuple[str, ...], list[Score]] = {}
        folders = set()
        for request in filter(_is_needed, requests):
            for run in (run for seed in request.seeds for run in seed if run):
                if run.folder not in folders:
                    folders.add(run.folder)
                    try:
                        run_scores = self._scores(run)
                    except HarnessError:  # The comparison of its recipe reports the error.
                        continue
                    by_ids.setdefault(tuple(run_scores.ids), []).extend(run_scores.scores.values())
        if by_ids:
            scores = max(by_ids.values(), key=len)
            sizes = {len(score.statistics) for score in scores}
            if len(sizes) == 1 and min(sizes) > 1:
                self._bootstrap.resample(scores)

    def _lead_baseline(self, baseline: StoredRun, shared: bool) -> RunScores:
        """Return the lead baseline's scores, computed once for each set of test examples."""
        report = baseline.report
        if not shared:
            own = "the seeds have different test examples"
            return RunScores([], {}, dict.fromkeys(report.quality, own))
        signatures = [f"{name}={value.signature}" for name, value in report.quality.items()]
        ids = self._scores(baseline).ids
        data = report.data.sha256 if report.data else str(baseline.folder)
        key = (str(baseline.folder.parent), data, *ids, *signatures)
        if key not in _lead_scores:
            while len(_lead_scores) >= _MOST_LEAD_SCORES:
                del _lead_scores[next(iter(_lead_scores))]
            _lead_scores[key] = score_lead_baseline(baseline)
        return _lead_scores[key]

    def _scores(self, run: StoredRun) -> RunScores:
        if run.folder not in self._read:
            self._read[run.folder] = read_scores(run.folder, run.report, self._metrics)
        return self._read[run.folder]


def _is_needed(request: Request) -> bool:
    """Return whether predictions add to the reports; those of a single run do not."""
    return len(request.seeds) > 1 or any(seed.baseline for seed in request.seeds)


def _fill(
    outcome: Outcome,
    name: str,
    comparison: Comparison,
    higher_is_better: bool,
    lead: RunScores,
    whom: str,
) -> None:
    """Write the comparison of a metric, or the reasons why parts of it are missing."""
    paired = outcome.metrics[name]
    lead_score = lead.scores.get(name)
    paired.difference = _estimate(comparison.difference, comparison.seeds)
    paired.p_value = comparison.p_value
    paired.floor = lead_score.value if lead_score else None
    if comparison.retention:
        paired.retention = _estimate(comparison.retention, comparison.seeds)
    else:
        whose = f"{whom}'s value" if higher_is_better else "its value"
        outcome.no_share[name] = f"{whose} is not clearly above zero"
        return
    if comparison.retention_above_floor:
        paired.retention_above_floor = _estimate(comparison.retention_above_floor, comparison.seeds)
    elif lead_score:
        outcome.no_floor[name] = f"{whom} is not clearly above the lead baseline"
    else:
        why = f"{whom} was not scored with it"
        outcome.no_floor[name] = lead.missing.get(name, why)


def _why_not_comparable(
    pairs: Sequence[tuple[StoredRun, StoredRun]],
    recipe: Sequence[RunScores],
    others: Sequence[RunScores],
    whom: str,
) -> str | None:
    """Return why a recipe cannot be compared with the baseline, or None if it can."""
    for (run, baseline), scores, other_scores in zip(pairs, recipe, others, strict=True):
        report, other = run.report, baseline.report
        if report.decoding != other.decoding:
            return f"decoded with {report.decoding}, {whom} with {other.decoding}"
        if report.data and other.data and report.data.sha256 != other.data.sha256:
            return f"the data are not those of {whom}"
        if scores.ids != other_scores.ids:
            return f"the test examples are not those of {whom}"
    return None


def _named(name: str, runs: Sequence[RunScores], whom: str) -> list[Score]:
    """Return each run's score by a metric.

    Raises:
        ValueError: a run has none.
    """
    for scores in runs:
        if name not in scores.scores:
            raise ValueError(scores.missing.get(name, f"{whom} was not scored with it"))
    return [scores.scores[name] for scores in runs]


def _estimate(interval: Interval, seeds: int) -> Estimate:
    value, low, high = interval
    return Estimate(value=value, low=low, high=high, seeds=seeds)
