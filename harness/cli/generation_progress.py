"""Progress of ``harness generate``: a bar on a terminal, and notes on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from harness.generation.stream import Status


class GenerationProgress:
    """A bar with the share of the input, the records and the tokens per second.

    A context manager; the bar is drawn on standard error if that is a terminal.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]:,} records, {task.fields[rate]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._bar = self._bars.add_task("Loading", total=None, records=0, rate=0.0)

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

    def on_progress(self, status: Status) -> None:
        """Move the bar."""
        rate = status.tokens / status.seconds if status.seconds else 0.0
        total = None if status.share is None else 1.0
        self._bars.update(
            self._bar,
            description="Generating",
            total=total,
            completed=status.share or 0.0,
            records=status.records,
            rate=rate,
        )

    def on_note(self, note: str) -> None:
        """Print a sentence above the bar."""
        self._console.print(note, soft_wrap=True, markup=False)
