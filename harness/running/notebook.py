"""One output of a notebook cell that is redrawn as it changes."""

from __future__ import annotations

from typing import Any

from harness import clock

_SECONDS = 0.5
"""Shortest time between two drawings."""


class NotebookOutput:
    """An output of a notebook cell; needs no widgets.

    Args:
        content: any object that a notebook can show; each call draws it again.
    """

    def __init__(self, content: Any) -> None:
        self._content = content
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, now: bool = False) -> None:
        """Show the content in its current state.

        Args:
            now: draw even if the last drawing was less than half a second ago.
        """
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self._content, display_id=True)
        elif now or clock.seconds() - self._drawn >= _SECONDS:
            self._handle.update(self._content)
        else:
            return
        self._drawn = clock.seconds()
