"""A progress bar that appears only if a step takes longer than a second."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress


class Waiting:
    """Counts finished items, and after a while shows a bar on stderr, if that is a terminal.

    A context manager; the bar is erased when it ends.

    Args:
        what: the label of the bar.
        total: the number of calls of ``on_progress``; None if it is unknown.
        after: seconds until the bar is shown.
    """

    def __init__(self, what: str, total: int | None = None, after: float = 1) -> None:
        self._what, self._total = what, total
        self._done = 0
        self._bar: Progress | None = None
        self._timer = threading.Timer(after, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._timer.is_alive():
            self._timer.join()
        if self._bar:
            self._bar.stop()

    def on_progress(self) -> None:
        """Count one finished item."""
        self._done += 1
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _show(self) -> None:
        # Imported here: most commands finish before a bar is needed.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        bar.add_task(self._what, total=self._total, completed=self._done)
        bar.start()
        self._bar = bar
