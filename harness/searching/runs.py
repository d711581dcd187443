"""Runs of a search: candidates trained to a rung, and finalists to the end, by the sweep's code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import clock
from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.searching.budget import Budget
from harness.searching.candidates import Candidate, EvalMetric, history_of, read_history
from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, Executor
from harness.sweeps.preview import plan_cells
from harness.sweeps.sweep import Outcome, Sweep, SweepCell
from harness.sweeps.view import SweepView

_START_SECONDS = 10.0
"""Time from the start of a process to its first step, until one has been measured."""
_HOPELESS = ("nan", "oom")
"""Statuses of runs that would fail again."""


@dataclass(frozen=True)
class Reached:
    """A candidate at a rung.

    Attributes:
        value: its best score on the eval split so far; None if its training failed.
        failure: the reason, if its training failed.
    """

    value: float | None
    failure: str | None = None


class Runs:
    """Trains candidates with one seed, and stops each before its test split is predicted.

    Args:
        base: the settings of all runs; its seed is that of the search.
        plugins: the plugins of this environment.
        results: the folder of the runs.
        executor: starts the workers.
        metric: the score on the eval split.
        budget: gets the time saved from time to time.
        console: shows a line for each run; None shows nothing.
    """

    def __init__(
        self,
        base: RunSpec,
        plugins: Plugins,
        results: Path,
        executor: Executor[Any],
        metric: EvalMetric,
        budget: Budget,
        console: Console | None,
    ) -> None:
        self.base, self.plugins, self.results = base, plugins, results
        self.executor, self.metric = executor, metric
        self._budget, self._console = budget, console
        self._ids: dict[Candidate, str] = {}
        self._started: dict[str, float] = {}
        self._noted: set[str] = set()
        self.start_seconds = _START_SECONDS

    def reach(self, candidates: Sequence[Candidate], step: int) -> list[Reached]:
        """Train candidates up to a step, from where each was stopped before.

        Raises:
            KeyboardInterrupt: the search was interrupted; the runs saved their states.
        """
        specs = [c.spec(self.base, self.plugins, self.base.seed) for c in candidates]
        cells = [plan.cell for plan in plan_cells(specs, self.plugins, self.results)]
        self._ids.update(zip(candidates, (cell.id for cell in cells), strict=True))
        left = [
            replace(cell, stop_after=step)
            for cell in cells
            if not (self._is_at(cell.id, step) or self._is_hopeless(cell.id))
        ]
        outcomes = {outcome.cell.id: outcome for outcome in self.sweep(self.results, left)}
        return [self._reached(cell.id, step, outcomes.get(cell.id)) for cell in cells]

    def value(self, candidate: Candidate, step: int) -> float | None:
        """Return a candidate's best score up to a step that it has reached; None otherwise."""
        run = self._id(candidate)
        history = history_of(self.results, run)
        return self.metric.best_until(history, step) if self._is_at(run, step) else None

    def training_seconds(self, candidate: Candidate) -> float | None:
        """Return the seconds of a candidate's whole training; None if it was stopped before."""
        report = self._report(self._id(candidate))
        return report.training.seconds if report and report.training else None

    def sweep(self, results: Path, cells: Sequence[SweepCell]) -> list[Outcome]:
        """Run cells, with a line for each on the console."""
        if not cells:
            return []
        try:
            if self._console is None:
                return self._runner(results, lambda *_: None).run(cells)
            with SweepView(self._console, cells) as view:
                return self._runner(results, view.on_event).run(cells)
        finally:
            self._budget.save()

    def _runner(self, results: Path, show: Callable[[SweepCell, Event], None]) -> Sweep:
        def on_event(cell: SweepCell, event: Event) -> None:
            self._budget.save_if_due()
            self._time(cell, event)
            if event["event"] == "data":  # All runs read the same data.
                event = {**event, "notes": [n for n in event["notes"] if n not in self._noted]}
                self._noted.update(event["notes"])
            show(cell, _renamed(cell, event))

        return Sweep(results, self.executor, on_event, plugin_files=self.plugins.files)

    def _time(self, cell: SweepCell, event: Event) -> None:
        """Measure the time from the start of a process to its training."""
        if event.get("phase") == "start":
            self._started[cell.id] = clock.seconds()
        elif event.get("phase") == "train" and cell.id in self._started:
            self.start_seconds = clock.seconds() - self._started.pop(cell.id)

    def _id(self, candidate: Candidate) -> str:
        if candidate not in self._ids:
            spec = candidate.spec(self.base, self.plugins, self.base.seed)
            (plan,) = plan_cells([spec], self.plugins, self.results)
            self._ids[candidate] = plan.cell.id
        return self._ids[candidate]

    def _is_at(self, run: str, step: int) -> bool:
        """Return whether a run has been evaluated at a step or later, or has been trained."""
        rows = read_history(history_of(self.results, run))
        if any("eval" in row and row["step"] >= step for row in rows):
            return True
        report = self._report(run)
        return report is not None and report.training is not None

    def _is_hopeless(self, run: str) -> bool:
        """Return whether a run failed in a way in which it would fail again."""
        report = self._report(run)
        return report is not None and report.status in _HOPELESS

    def _report(self, run: str) -> Report | None:
        try:
            return read_report(self.results / run)
        except HarnessError:
            return None

    def _reached(self, run: str, step: int, outcome: Outcome | None) -> Reached:
        if outcome and outcome.status not in ("ok", "interrupted"):
            return Reached(None, f"{outcome.status}: {outcome.message}")
        if not self._is_at(run, step):
            report = self._report(run)
            return Reached(None, report.status if report else "it left no report")
        value = self.metric.best_until(history_of(self.results, run), step)
        return Reached(value, None if value is not None else "its scores are not numbers")


def _renamed(cell: SweepCell, event: Event) -> Event:
    """Return an event as the view shows it: a run that stops at its rung is not a failure."""
    if cell.stop_after is not None and event.get("status") == "interrupted":
        return {"event": f"at step {cell.stop_after}"}
    return event
