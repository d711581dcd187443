"""Recipes against full fine-tuning on the same test examples, and what of that is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import HarnessError
from harness.metric import Score
from harness.reporting.floor import score_floor
from harness.reporting.folder import StoredRun
from harness.reporting.report import Record
from harness.reporting.scores import RunScores, read_scores
from harness.reporting.summary import Estimate
from harness.reporting.writing import write_text

_CACHE = ".cache/comparisons.json"
_FORM = 2
"""Raised whenever the statistics change, so that no older number is taken for a new one."""


class Paired(Record):
    """What the bootstrap says of one metric of a recipe."""

    value: Estimate | None = None
    """Mean over seeds."""
    difference: Estimate | None = None
    """Less full fine-tuning's."""
    retention: Estimate | None = None
    """Over full fine-tuning's."""
    floor: float | None = None
    """What the lead of the source scores."""
    retention_above_floor: Estimate | None = None
    """Over full fine-tuning's, after the floor is taken from both."""
    p_value: float | None = None
    """Of no difference, not yet adjusted."""


class Outcome(Record):
    """What the bootstrap says of a recipe."""

    metrics: dict[str, Paired] = Field(default_factory=dict)
    """Metric -> what was found."""
    reason: str | None = None
    """Why nothing was compared with full fine-tuning, if so."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Metric -> why it has no comparison, or no interval over seeds."""
    no_floor: dict[str, str] = Field(default_factory=dict)
    """Metric with a retention -> why it has none above the floor."""


class Seed(NamedTuple):
    """A recipe's run and full fine-tuning's run of the same seed, if there is one."""

    run: StoredRun
    baseline: StoredRun | None


class Comparisons:
    """Compares, and keeps what it found in the results folder: a bootstrap takes its time.

    What is kept is found again by the ids and the times of the runs that it rests on. The folder
    holds a .gitignore of its own; where it cannot be written, nothing is kept.

    Args:
        results: the folder of all runs; ``None`` keeps nothing.
    """

    def __init__(self, results: Path | None) -> None:
        self._file = results / _CACHE if results else None
        self._kept: dict[str, Outcome] = {}
        self._new = False
        self._read: dict[tuple[Path, tuple[str, ...]], RunScores] = {}
        self._floors: dict[tuple[str, ...], RunScores] = {}
        with contextlib.suppress(OSError, ValidationError):
            if self._file:
                self._kept = _KEPT.validate_json(self._file.read_bytes())

    def of(self, seeds: Sequence[Seed], metrics: Sequence[str]) -> Outcome:
        """Compare a recipe's seeds with those of full fine-tuning.

        Args:
            seeds: all of one recipe; those without a baseline count in the mean alone.
            metrics: names.
        """
        key = _key(seeds, metrics)
        if key not in self._kept:
            try:
                self._kept[key] = self._compute(seeds, metrics)
            except HarnessError as error:  # Not kept: what could not be read may be mended.
                return Outcome(reason=error.message.rstrip("."))
            self._new = True
        return self._kept[key]

    def keep(self) -> None:
        """Write what was found."""
        if self._file is None or not self._new:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
            (self._file.parent / ".gitignore").write_text("*\n")
            write_text(self._file, _KEPT.dump_json(self._kept).decode())

    def _compute(self, seeds: Sequence[Seed], metrics: Sequence[str]) -> Outcome:
        from harness.statistics import compare, mean_interval

        pairs = [(seed.run, seed.baseline) for seed in seeds if seed.baseline]
        outcome = Outcome()
        if not pairs and len(seeds) == 1:
            return outcome
        every = [self._scores(seed.run, metrics) for seed in seeds]
        ours = [self._scores(run, metrics) for run, _ in pairs]
        full = [self._scores(baseline, metrics) for _, baseline in pairs]
        outcome.reason = _unlike(pairs, ours, full)
        shared = all(scores.ids == every[0].ids for scores in every)
        compared = bool(pairs) and not outcome.reason
        floor = self._floor(pairs[0][1], shared) if compared else None
        for name in metrics:
            found = outcome.metrics[name] = Paired()
            try:
                if len(seeds) > 1:
                    mean = mean_interval(_named(name, every), shared_examples=shared)
                    found.value = _estimate(mean)
                if floor is None:
                    continue
                mine, theirs = _named(name, ours), _named(name, full)
                ground = floor.scores.get(name) if mine[0].higher_is_better else None
                made = compare(mine, theirs, ground, shared_examples=shared)
            except ValueError as error:
                outcome.missing[name] = str(error)
                continue
            found.difference = _estimate(made.difference)
            found.p_value = made.p_value
            if not made.retention or not mine[0].higher_is_better:
                continue
            found.retention = _estimate(made.retention)
            found.floor = ground.value if ground else None
            if made.retention_above_floor:
                found.retention_above_floor = _estimate(made.retention_above_floor)
            else:
                low = "full fine-tuning is not clearly above the floor"
                outcome.no_floor[name] = low if ground else floor.missing[name]
        return outcome

    def _floor(self, baseline: StoredRun, shared: bool) -> RunScores:
        """Return the floor's scores: made once for all recipes tested on the same examples."""
        report = baseline.report
        if not shared:
            own = "the seeds have test examples of their own"
            return RunScores([], {}, dict.fromkeys(report.quality, own))
        signatures = [f"{name}={value.signature}" for name, value in report.quality.items()]
        ids = self._scores(baseline, ()).ids
        key = (report.data.sha256 if report.data else "", *ids, *signatures)
        if key not in self._floors:
            self._floors[key] = score_floor(baseline)
        return self._floors[key]

    def _scores(self, run: StoredRun, metrics: Sequence[str]) -> RunScores:
        key = (run.folder, tuple(metrics))
        if key not in self._read:
            self._read[key] = read_scores(run.folder, run.report, metrics)
        return self._read[key]


_KEPT = TypeAdapter(dict[str, Outcome])


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


def _key(seeds: Sequence[Seed], metrics: Sequence[str]) -> str:
    runs = [
        [run.report.id, run.report.started] for seed in seeds for run in seed if run is not None
    ]
    text = json.dumps([_FORM, runs, list(metrics)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _estimate(interval: tuple[float, float, float]) -> Estimate:
    value, low, high = interval
    return Estimate(value=value, low=low, high=high)
