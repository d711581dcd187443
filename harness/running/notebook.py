"""One output of a notebook cell that is redrawn as it changes."""

from __future__ import annotations

from typing import Any

from harness import clock

_SECONDS = 0.5
"""Shortest time between two drawings."""


class NotebookOutput:
    """An output of a notebook cell; needs no widgets.

    Args:
        content: is drawn anew by each call; anything that a notebook can show.
    """

    def __init__(self, content: Any) -> None:
        self._content = content
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, now: bool = False) -> None:
        """Show the content as it is.

        Args:
            now: draw even if the last drawing was a moment ago.
        """
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self._content, display_id=True)
        elif now or clock.seconds() - self._drawn >= _SECONDS:
            self._handle.update(self._content)
        else:
            return
        self._drawn = clock.seconds()
