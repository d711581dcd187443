"""The live view of a sweep: a line for each cell."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import clock
from harness.running.notebook import NotebookOutput

if TYPE_CHECKING:
    from harness.sweeps.executor import Event
    from harness.sweeps.sweep import SweepCell

_STYLES = {"ok": "green", "waiting": "dim", "busy": "yellow", "done before": "dim"}


_NARROW = 60
"""Terminals with fewer columns than this show no steps and no rate."""
_GAP = 2
"""Spaces between two columns."""


@dataclass
class _State:
    phase: str = "waiting"
    steps: int | None = None
    first: int = 0
    step: int = 0
    began: float = 0.0
    at: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float | None:
        """Steps per second in this phase, counted from the first event."""
        seconds = self.at - self.began
        return (self.step - self.first) / seconds if self.step > self.first and seconds else None


class SweepView(JupyterMixin):
    """Shows every cell's phase, rate and time left; a context manager.

    A notebook shows the same table. Anywhere else, each change prints one line instead.

    Args:
        console: the console to draw on.
        cells: all cells of the sweep.
    """

    def __init__(self, console: Console, cells: Sequence[SweepCell]) -> None:
        self._console = console
        self._cells = cells
        self._common, self._names = names(cells)
        self._states = {
            cell.id: _State("done before" if cell.done else "waiting") for cell in cells
        }
        self._printed: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=2)
        self._notebook = NotebookOutput(self) if console.is_jupyter else None
        self._lines = not console.is_terminal and self._notebook is None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        if self._notebook is not None:
            self._notebook.draw(now=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        if self._notebook is not None:
            self._notebook.draw(now=True)

    def __rich__(self) -> Table:
        return self._draw()

    def on_event(self, cell: SweepCell, event: Event) -> None:
        """Update the state of a cell; may be called from any thread."""
        self._update(cell, event)
        if self._notebook is not None:
            self._notebook.draw()

    def _update(self, cell: SweepCell, event: Event) -> None:
        # The time of an event that was written to a file, which is possibly read much later.
        now = event.get("at") or clock.seconds()
        with self._lock:
            state = self._states[cell.id]
            match event["event"]:
                case "phase":
                    state = _State(event["phase"], event["steps"], began=now, note=state.note)
                    self._states[cell.id] = state
                case "data":
                    self._print_notes(cell, event["notes"])
                    return
                case "step":
                    # The first step of a phase includes its set-up.
                    if not state.step:
                        state.first, state.began = event["step"], now
                    state.step, state.at = event["step"], now
                    return
                case "finished":
                    state.phase = event["status"]
                case "shrunk":
                    state.note = f"micro-batch {event['micro_batch']}"
                case kind:
                    state.phase = kind
        if self._lines:
            line = f"{title(cell)}: {state.phase}{f', {state.note}' if state.note else ''}"
            self._console.print(line, soft_wrap=True, markup=False)

    def _print_notes(self, cell: SweepCell, notes: list[str]) -> None:
        """Print the notes on a task's data, once for all of its cells."""
        for note in notes:
            if (cell.spec.task, note) not in self._printed:
                self._printed.add((cell.spec.task, note))
                line = f"{cell.spec.task}: {note}"
                self._console.print(line, style="yellow", soft_wrap=True, markup=False)

    def _draw(self) -> Table:
        narrow = self._console.width < _NARROW
        with self._lock:
            shown = _window(self._cells, self._states, self._console.height - 4)
            rows = [_row(self._names[cell.id], self._states[cell.id], narrow) for cell in shown]
        headings = ["phase", "left"] if narrow else ["phase", "steps", "per second", "left"]
        taken = [
            max(cell_len(heading), *(cell_len(str(row[place])) for row in rows))
            for place, heading in enumerate(headings, start=1)
        ]
        # Only the first column is shortened to fit.
        name_width = max(1, self._console.width - sum(taken) - _GAP * len(taken))
        table = Table(box=None, pad_edge=False)
        table.add_column(
            Text(self._common), overflow="ellipsis", no_wrap=True, max_width=name_width
        )
        table.add_column("phase", no_wrap=True)
        for heading in headings[1:]:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        if hidden := len(self._cells) - len(shown):
            table.add_row(f"and {hidden} more", style="dim")
        return table


def title(cell: SweepCell) -> str:
    """Return the name of a cell, in one line."""
    spec = cell.spec
    backbone, task = (path.rstrip("/").split("/")[-1] for path in (spec.backbone, spec.task))
    return f"{backbone} x {cell.recipe} on {task}, seed {spec.seed}"


def names(cells: Sequence[SweepCell]) -> tuple[str, dict[str, str]]:
    """Return the part of the names that all cells share, and the rest of each name by cell id."""

    def short(path: str) -> str:
        return path.rstrip("/").split("/")[-1]

    backbones = {short(cell.spec.backbone) for cell in cells}
    tasks = {short(cell.spec.task) for cell in cells}
    seeds = {cell.spec.seed for cell in cells}

    def name(cell: SweepCell) -> str:
        backbone = f"{short(cell.spec.backbone)} x " if len(backbones) > 1 else ""
        task = f" on {short(cell.spec.task)}" if len(tasks) > 1 else ""
        seed = f", seed {cell.spec.seed}" if len(seeds) > 1 else ""
        return f"{backbone}{cell.recipe}{task}{seed}"

    shared = [*backbones] if len(backbones) == 1 else []
    shared += [f"on {task}" for task in tasks if len(tasks) == 1]
    common = ", ".join([" ".join(shared)] + [f"seed {seed}" for seed in seeds if len(seeds) == 1])
    return common.removeprefix(", ") or "run", {cell.id: name(cell) for cell in cells}


def duration(seconds: float) -> str:
    """Write a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _window(
    cells: Sequence[SweepCell], states: dict[str, _State], height: int
) -> Sequence[SweepCell]:
    """Return as many cells as fit into the height, unfinished ones before finished ones."""
    if len(cells) <= max(height, 1):
        return cells
    ended = {"done before", "ok", "oom", "nan", "timeout", "error", "interrupted"}
    open_cells = [cell for cell in cells if states[cell.id].phase not in ended]
    return (open_cells or list(cells))[: max(height - 1, 1)]


def _row(name: str, state: _State, narrow: bool) -> tuple[str | Text, ...]:
    failed = state.phase in ("oom", "nan", "timeout", "error", "interrupted")
    style = "bold red" if failed else _STYLES.get(state.phase, "bold")
    steps = f"{state.step}/{state.steps}" if state.steps and state.step else ""
    left = (state.steps - state.step) / state.rate if state.steps and state.rate else None
    title_text = Text(f"{name}{f' ({state.note})' if state.note else ''}")
    phase = Text(state.phase, style)
    time_left = duration(left) if left is not None else ""
    if narrow:
        return title_text, phase, time_left
    return title_text, phase, steps, f"{state.rate:.2f}" if state.rate else "", time_left
