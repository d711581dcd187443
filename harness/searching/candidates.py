"""Candidates of a search and their runs: spec, history and score on the eval split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.plugins import Plugins
from harness.evaluation.scoring import metric_of, named_metrics, references_of
from harness.records.run_folder import HISTORY
from harness.spec.run_spec import RunSpec
from harness.training.learning_rate import peak_learning_rate


@dataclass(frozen=True)
class Candidate:
    """A recipe with a learning rate.

    Attributes:
        recipe: the recipe in canonical form.
        octave: the learning rate is the recipe's own times 2 to this power.
    """

    recipe: str
    octave: int = 0

    def learning_rate(self, base: RunSpec, plugins: Plugins) -> float:
        """Return the peak learning rate, to three digits."""
        own = peak_learning_rate(base.train, plugins.recipe(self.recipe))
        return float(f"{own * 2.0**self.octave:.3g}")

    def spec(
        self, base: RunSpec, plugins: Plugins, seed: int, *, measures: bool = False
    ) -> RunSpec:
        """Return the spec of a run.

        Args:
            base: the settings of all runs of the search.
            plugins: the plugins of this environment.
            seed: the seed of the run.
            measures: whether the run measures the speed and memory of training by itself.
        """
        rate = self.learning_rate(base, plugins) if self.octave else None
        train = base.train.model_copy(update={"tuned_learning_rate": rate})
        quiet: dict[str, Any] = {"inference": False}
        if not measures:
            quiet |= {"training": False, "baseline": "off"}
        probe = base.probe.model_copy(update=quiet)
        own = {"recipe": self.recipe, "seed": seed, "train": train, "probe": probe}
        return base.model_copy(update=own)


@dataclass(frozen=True)
class EvalMetric:
    """The metric on the eval split that the search compares candidates by.

    Attributes:
        name: the name of the score.
        higher_is_better: the direction of the score.
    """

    name: str
    higher_is_better: bool

    def share(self, value: float | None, baseline: float) -> float | None:
        """Return a value relative to full fine-tuning's, 1 for equal and more for better."""
        if value is None:
            return None
        if self.higher_is_better:
            return value / baseline if baseline > 0 else 0.0
        return baseline / value if value > 0 else float("inf")

    def best_until(self, history: Path, step: int) -> float | None:
        """Return the best finite score of a run's evaluations up to a step; None without one.

        Args:
            history: the run's ``history.jsonl``; there need be none.
            step: the last step whose evaluation counts.
        """
        found = [
            row["eval"][self.name]
            for row in read_history(history)
            if "eval" in row and row["step"] <= step and row["eval"].get(self.name) is not None
        ]
        return self.best(found) if found else None

    def best(self, values: Sequence[float]) -> float:
        """Return the best of some values; 0 without any."""
        return (max if self.higher_is_better else min)(values, default=0.0)


def eval_metric(base: RunSpec, plugins: Plugins) -> EvalMetric:
    """Return the metric that chooses the best weights of the search's runs.

    Raises:
        HarnessError: there is no such metric.
    """
    task = plugins.task(base.task, base.task_options)
    suite = task.metrics()
    named = [] if base.metrics is None else [*named_metrics(base.metrics, plugins.metrics).values()]
    name = base.train.best_metric or task.primary_metric
    metric = metric_of([*named, *suite], name)
    rows = task.splits(base.seed).eval.select(range(1))
    references = references_of(rows, metric)
    scores = metric.score(list(rows["source"]), list(rows["target"]), references)
    return EvalMetric(name, scores[name].higher_is_better)


def read_history(history: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's history; a line that is being written is left out."""
    rows: list[dict[str, Any]] = []
    if history.exists():
        for line in history.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def history_of(results: Path, run: str) -> Path:
    """Return the history of a run that was stopped, or of one that is at work."""
    stopped = results / run / HISTORY
    return stopped if stopped.exists() else results / f".{run}.partial" / HISTORY


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the first candidate of each recipe."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.recipe, candidate)
    return list(first.values())
