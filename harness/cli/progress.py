"""Progress bars of a run, drawn by the observer hooks that any plugin can use."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
from harness.api.hookspecs import hookimpl
from harness.records.report import Report


class Progress:
    """Shows one bar per phase. A context manager; register it with the plugin manager.

    Args:
        console: is drawn on. If it is not a terminal, each phase prints one line instead.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._current: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    @hookimpl
    def data_read(self, event: DataRead) -> None:
        """Print what was guessed, left out and truncated."""
        for note in event.notes:
            self._console.print(note, style="yellow", soft_wrap=True, markup=False)

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        """Start a bar."""
        self._finish()
        if not self._console.is_terminal:
            self._console.print(event.phase)
        self._current = self._bars.add_task(event.phase, total=event.steps, note="")

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        """Move the bar."""
        assert self._current is not None
        self._bars.update(self._current, completed=event.step)
        if "loss" in event.values:
            self._note(loss=event.values["loss"])

    @hookimpl
    def evaluated(self, event: Evaluated) -> None:
        """Show the score."""
        self._note(**event.values)
        if not self._console.is_terminal:
            scores = "  ".join(f"{name} {value:.2f}" for name, value in event.values.items())
            self._console.print(f"  step {event.step}: {scores}{'  (best)' * event.best}")

    @hookimpl
    def run_finished(self, report: Report) -> None:
        """Complete the last bar, unless the run failed in its phase."""
        if report.failure is None:
            self._finish()

    def _note(self, **values: float) -> None:
        assert self._current is not None
        shown = [name for name in ("loss", "rouge1") if name in values] or list(values)[:1]
        old = self._bars.tasks[self._current].fields["note"]
        notes = dict(part.split(" ") for part in old.split("  ") if part)
        notes.update({name: f"{values[name]:.2f}" for name in shown})
        self._bars.update(
            self._current, note="  ".join(f"{name} {value}" for name, value in notes.items())
        )

    def _finish(self) -> None:
        if self._current is None:
            return
        task = self._bars.tasks[self._current]
        total = task.total or 1
        self._bars.update(self._current, total=total, completed=total)
