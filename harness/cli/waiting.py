"""A bar for what is mostly done at once: it comes up only where one has to wait."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress


class Waiting:
    """Counts what is done, and after a while shows it on stderr, if that is a terminal.

    A context manager; what it drew is gone when it ends.

    Args:
        what: is being done, in a few words.
        total: how often ``on_progress`` will be called, where that is known.
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
        """Count one more."""
        self._done += 1
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _show(self) -> None:
        # Imported only now: most commands are done before it would be.
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
