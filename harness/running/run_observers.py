"""Calls of a run's observers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
from harness.records.phase import Phase
from harness.records.report import Report
from harness.spec.run_spec import RunSpec

if TYPE_CHECKING:
    from pluggy import HookRelay


class RunObservers:
    """Calls the hooks of all observers, and keeps the current phase.

    Args:
        hook: the hooks of all plugins.

    Attributes:
        phase: the phase that was entered last.
    """

    def __init__(self, hook: HookRelay) -> None:
        self.phase = Phase.LOAD
        self._hook = hook

    def run_started(self, spec: RunSpec) -> None:
        """Announce the run."""
        self._hook.run_started(spec=spec)

    def data_read(self, event: DataRead) -> None:
        """Announce that the data are read."""
        self._hook.data_read(event=event)

    def enter(self, phase: Phase, steps: int | None = None) -> None:
        """Announce a phase and its number of steps, if that is known."""
        self.phase = phase
        self._hook.phase_started(event=PhaseStarted(phase.value, steps))

    def step_done(self, event: StepDone) -> None:
        """Announce a step of the current phase."""
        self._hook.step_done(event=event)

    def evaluated(self, event: Evaluated) -> None:
        """Announce the scores of the eval split."""
        self._hook.evaluated(event=event)

    def run_finished(self, report: Report) -> None:
        """Announce the report."""
        self._hook.run_finished(report=report)
