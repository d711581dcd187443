"""Runs the cells of the study that are not finished, the most valuable first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean

from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.records.run_folder import HISTORY
from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, open_executor
from harness.sweeps.preview import plan_cells
from harness.sweeps.sweep import Outcome, Sweep, SweepCell
from study.recipes import pruned
from study.size import FACTORS, Size, cell, rates, trial
from study.store import FAILURES, TRIALS, Keys, Store
from study.studies import Study

TOGETHER = 10
"""Recipes whose runs are given to the executor together. Results appear when all have ended."""


@dataclass
class Runner:
    """Runs the study.

    Attributes:
        plugins: the plugins of this environment.
        store: the results folder.
        study: the study.
        size: the size of the study.
        executor: executor of the runs, as ``harness sweep`` takes it.
        bare: the study's recipes, without those that it makes of them by pruning.
        on_progress: is called with a line of text for each run that has ended.
    """

    plugins: Plugins
    store: Store
    study: Study
    size: Size
    executor: str
    bare: Sequence[str]
    on_progress: Callable[[str], None] = print
    _keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        self._keys = Keys(self.store.code)

    def run(self) -> None:
        """Choose the learning rates and run all cells; what is finished is not repeated.

        The order is: every recipe once, then its other seeds, then all of that with pruning. So a
        study that is stopped early has compared all methods.
        """
        groups = [self.bare[i : i + TOGETHER] for i in range(0, len(self.bare), TOGETHER)]
        for group in groups:
            self._try_rates(group)
            self._run_cells(group, [0])
            self._count()
        others = range(1, self.size.seeds)
        for group in groups:
            self._run_cells(group, others)
            self._count()
        if not self.study.adds_pruning:
            return
        for seeds, group in product(([0], others), groups):
            self._run_cells(group, seeds, with_pruning=True)
            self._count()

    def _count(self) -> None:
        """Report the number of runs that have ended."""
        records = [*self.store.read(TRIALS).values(), *self.store.records().values()]
        ended = sum(record["code"] == self.store.code for record in records)
        cells = self.study.planned(self.bare, self.size.seeds, self.plugins)
        every = len(self.bare) * len(FACTORS) + len(cells)
        self.on_progress(f"{ended} runs have ended, of about {every}")

    def rate(self, recipe: str) -> float | None:
        """Return the learning rate with the lowest loss; None if no training had one."""
        trials = self.store.read(TRIALS)
        found = [trials.get(self._keys.of(spec)) for spec in self._trials(recipe)]
        ended = [t for t in found if t and t["loss"] is not None]
        best = min(ended, key=lambda t: float(t["loss"]), default=None)
        return None if best is None else float(best["learning_rate"])

    def _trials(self, recipe: str) -> Iterator[RunSpec]:
        return (trial(recipe, rate, self.size) for rate in rates(recipe, self.plugins))

    def _try_rates(self, group: Sequence[str]) -> None:
        trials = self.store.read(TRIALS)
        specs = [spec for recipe in group for spec in self._trials(recipe)]
        for outcome in self._outcomes([s for s in specs if self._keys.of(s) not in trials]):
            spec = outcome.cell.spec
            if outcome.status not in ("ok", "nan"):
                self._fail(spec.recipe, _failure(outcome))
                continue
            trials[self._keys.of(spec)] = {
                "recipe": spec.recipe,
                "learning_rate": spec.train.tuned_learning_rate,
                # A training that diverged has none.
                "loss": last_loss(self.store.work / outcome.cell.id)
                if outcome.status == "ok"
                else None,
                "code": self.store.code,
            }
            self.store.write(TRIALS, trials)
            shutil.rmtree(self.store.work / outcome.cell.id)

    def _run_cells(
        self, group: Sequence[str], seeds: Sequence[int], *, with_pruning: bool = False
    ) -> None:
        done = self.store.done()
        specs = []
        for seed, recipe in product(seeds, group):
            rate = self.rate(recipe)
            try:
                composed = pruned(recipe, self.plugins) if with_pruning else recipe
            except HarnessError as error:
                self._fail(f"{recipe}+lprun", error.message)
                continue
            if rate is None:
                self._fail(composed, "no learning rate gave a finite loss", replace=False)
                continue
            spec = cell(composed, rate, seed, self.size)
            if self._keys.of(spec) not in done:
                specs.append(spec)
        for outcome in self._outcomes(specs):
            spec = outcome.cell.spec
            if outcome.status == "ok":
                self.store.add(self.store.work / outcome.cell.id, self._keys.of(spec))
                self._forget_failure(spec.recipe)
            else:
                self._fail(spec.recipe, _failure(outcome))

    def _outcomes(self, specs: Sequence[RunSpec]) -> list[Outcome]:
        """Run each spec in a fresh process, and return how they ended."""
        cells = [plan.cell for plan in plan_cells(specs, self.plugins, self.store.work)]
        place = open_executor(self.executor, self.plugins)
        return Sweep(self.store.work, place, self._on_event).run(cells)

    def _on_event(self, run: SweepCell, event: Event) -> None:
        if event.get("event") in ("finished", "mistake"):
            rate = run.spec.train.tuned_learning_rate
            name = f"{run.recipe}, seed {run.spec.seed}, learning rate {rate:g}"
            self.on_progress(f"{event.get('status', 'error')}: {name}")

    def _fail(self, recipe: str, reason: str, *, replace: bool = True) -> None:
        failures = self.store.read(FAILURES)
        if replace or recipe not in failures:
            self.store.write(FAILURES, {**failures, recipe: reason})

    def _forget_failure(self, recipe: str) -> None:
        failures = self.store.read(FAILURES)
        if failures.pop(recipe, None) is not None:
            self.store.write(FAILURES, failures)


def last_loss(run: Path) -> float:
    """Return the mean training loss of the last third of a run's steps.

    Args:
        run: the run's folder.
    """
    lines = (run / HISTORY).read_text("utf-8").splitlines()
    losses = [event["loss"] for event in map(json.loads, lines) if "loss" in event]
    return fmean(losses[-max(1, len(losses) // 3) :])


def _failure(outcome: Outcome) -> str:
    return f"{outcome.status}: {outcome.message or 'no reason was given'}"
