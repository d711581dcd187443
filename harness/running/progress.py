"""Progress bars of a run: an observer like those of any plugin."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
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
from harness.running.notebook import NotebookOutput
from harness.spec.run_spec import RunSpec


class Progress:
    """Shows one bar per phase. A context manager; register it with the plugin manager.

    A notebook shows the bars too. Anywhere else, each phase prints one line instead.

    Args:
        console: the console to draw on; by default the standard error stream.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console = console or Console(stderr=True, highlight=False)
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
        self._notebook = NotebookOutput(self._bars) if console.is_jupyter else None
        self._lines = not console.is_terminal and self._notebook is None
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
        self._draw(now=True)

    @hookimpl
    def run_started(self, spec: RunSpec) -> None:
        """Print the name of the run."""
        # Paths may hold square brackets, which rich would read as markup.
        self._console.print(
            f"[bold]{escape(spec.backbone)}[/] x [bold]{escape(spec.recipe)}[/] on "
            f"[bold]{escape(spec.task)}[/], seed {spec.seed}, preset {spec.preset}"
        )

    @hookimpl
    def data_read(self, event: DataRead) -> None:
        """Print notes on guessed columns, skipped rows and truncated texts."""
        for note in event.notes:
            self._console.print(note, style="yellow", soft_wrap=True, markup=False)

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        """Start a bar."""
        self._finish()
        if self._lines:
            self._console.print(event.phase)
        self._current = self._bars.add_task(event.phase, total=event.steps, note="")
        self._draw(now=True)

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        """Move the bar."""
        assert self._current is not None
        self._bars.update(self._current, completed=event.step)
        if "loss" in event.values:
            self._note(loss=event.values["loss"])
        self._draw()

    @hookimpl
    def evaluated(self, event: Evaluated) -> None:
        """Show the score."""
        self._note(**event.values)
        self._draw()
        if self._lines:
            scores = "  ".join(f"{name} {value:.2f}" for name, value in event.values.items())
            self._console.print(f"  step {event.step}: {scores}{'  (best)' * event.best}")

    @hookimpl
    def run_finished(self, report: Report) -> None:
        """Complete the last bar, unless the run failed in its phase."""
        if report.failure is None:
            self._finish()

    def _draw(self, *, now: bool = False) -> None:
        if self._notebook is not None:
            self._notebook.draw(now=now)

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
