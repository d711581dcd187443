"""The comparisons of one group of recipes: one matrix of draws serves all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.api.metric import Score
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.reporting.lead_baseline import score_floor
from harness.reporting.outcome import Outcome, Paired, Request
from harness.reporting.scores import RunScores, read_scores
from harness.reporting.summary import Estimate
from harness.statistics.intervals import Comparison, compare, mean_interval
from harness.statistics.resampling import Bootstrap
from harness.statistics.seed_mean import Interval

_floors: dict[tuple[str, ...], RunScores] = {}
"""The floors of the test examples that this process met last, which groups may share."""
_MOST_FLOORS = 16


def compare_group(requests: Sequence[Request]) -> list[Outcome | str]:
    """Compare the recipes of a group; a string says why one could not be."""
    group = _Group(requests)
    outcomes: list[Outcome | str] = []
    for request in requests:
        try:
            outcomes.append(group.compare(request))
        except HarnessError as error:
            outcomes.append(error.message.rstrip("."))
    return outcomes


class _Group:
    """Scores and draws that the recipes of a group share."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._metrics = tuple(dict.fromkeys(name for r in requests for name in r.metrics))
        self._bootstrap = Bootstrap()
        self._read: dict[Path, RunScores] = {}
        self._resample_together(requests)

    def compare(self, request: Request) -> Outcome:
        """Compare one recipe with full fine-tuning.

        Raises:
            HarnessError: predictions are missing or damaged.
        """
        pairs = [(seed.run, seed.baseline) for seed in request.seeds if seed.baseline]
        outcome = Outcome()
        if not _is_needed(request):
            return outcome
        every = [self._scores(seed.run) for seed in request.seeds]
        ours = [self._scores(run) for run, _ in pairs]
        full = [self._scores(baseline) for _, baseline in pairs]
        outcome.reason = _unlike(pairs, ours, full)
        shared = all(scores.ids == every[0].ids for scores in every)
        compared = bool(pairs) and not outcome.reason
        floor = self._floor(pairs[0][1], shared) if compared else None
        for name in request.metrics:
            found = outcome.metrics[name] = Paired()
            try:
                if len(every) > 1:
                    mean = mean_interval(
                        _named(name, every), shared_examples=shared, bootstrap=self._bootstrap
                    )
                    found.value = _estimate(mean, len(every))
                if floor is None:
                    continue
                mine, theirs = _named(name, ours), _named(name, full)
                ground = floor.scores.get(name)
                made = compare(
                    mine, theirs, ground, shared_examples=shared, bootstrap=self._bootstrap
                )
            except ValueError as error:
                outcome.missing[name] = str(error)
                continue
            _fill(outcome, name, made, mine[0].higher_is_better, floor)
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
                        found = self._scores(run)
                    except HarnessError:  # Said when its recipe is compared.
                        continue
                    by_ids.setdefault(tuple(found.ids), []).extend(found.scores.values())
        if by_ids:
            scores = max(by_ids.values(), key=len)
            sizes = {len(score.statistics) for score in scores}
            if len(sizes) == 1 and min(sizes) > 1:
                self._bootstrap.resample(scores)

    def _floor(self, baseline: StoredRun, shared: bool) -> RunScores:
        """Return the floor's scores: made once for all recipes tested on the same examples."""
        report = baseline.report
        if not shared:
            own = "the seeds have test examples of their own"
            return RunScores([], {}, dict.fromkeys(report.quality, own))
        signatures = [f"{name}={value.signature}" for name, value in report.quality.items()]
        ids = self._scores(baseline).ids
        data = report.data.sha256 if report.data else str(baseline.folder)
        key = (str(baseline.folder.parent), data, *ids, *signatures)
        if key not in _floors:
            while len(_floors) >= _MOST_FLOORS:
                del _floors[next(iter(_floors))]
            _floors[key] = score_floor(baseline)
        return _floors[key]

    def _scores(self, run: StoredRun) -> RunScores:
        if run.folder not in self._read:
            self._read[run.folder] = read_scores(run.folder, run.report, self._metrics)
        return self._read[run.folder]


def _is_needed(request: Request) -> bool:
    """Whether predictions say more than the reports; of one run alone they do not."""
    return len(request.seeds) > 1 or any(seed.baseline for seed in request.seeds)


def _fill(
    outcome: Outcome, name: str, made: Comparison, higher_is_better: bool, floor: RunScores
) -> None:
    found = outcome.metrics[name]
    ground = floor.scores.get(name)
    found.difference = _estimate(made.difference, made.seeds)
    found.p_value = made.p_value
    found.floor = ground.value if ground else None
    if made.retention:
        found.retention = _estimate(made.retention, made.seeds)
    else:
        whose = "full fine-tuning's value" if higher_is_better else "its value"
        outcome.no_share[name] = f"{whose} is not clearly above zero"
        return
    if made.retention_above_floor:
        found.retention_above_floor = _estimate(made.retention_above_floor, made.seeds)
    elif ground:
        outcome.no_floor[name] = "full fine-tuning is not clearly above the floor"
    else:
        why = "full fine-tuning was not scored with it"
        outcome.no_floor[name] = floor.missing.get(name, why)


def _unlike(
    pairs: Sequence[tuple[StoredRun, StoredRun]],
    ours: Sequence[RunScores],
    full: Sequence[RunScores],
) -> str | None:
    """Say why a recipe cannot be compared with full fine-tuning, if so."""
    for (run, baseline), scores, their_scores in zip(pairs, ours, full, strict=True):
        report, theirs = run.report, baseline.report
        if report.decoding != theirs.decoding:
            return f"decoded with {report.decoding}, full fine-tuning with {theirs.decoding}"
        if report.data and theirs.data and report.data.sha256 != theirs.data.sha256:
            return "the data are not those of full fine-tuning"
        if scores.ids != their_scores.ids:
            return "the test examples are not those of full fine-tuning"
    return None


def _named(name: str, runs: Sequence[RunScores]) -> list[Score]:
    """Return every run's score by a metric.

    Raises:
        ValueError: a run has none.
    """
    for scores in runs:
        if name not in scores.scores:
            raise ValueError(scores.missing.get(name, "full fine-tuning was not scored with it"))
    return [scores.scores[name] for scores in runs]


def _estimate(interval: Interval, seeds: int) -> Estimate:
    value, low, high = interval
    return Estimate(value=value, low=low, high=high, seeds=seeds)
