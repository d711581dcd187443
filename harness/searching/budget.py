"""Budget of wall time, over all starts of a search."""

from __future__ import annotations

import json
from pathlib import Path

from harness import clock
from harness.records.atomic import write_text

FILE = "budget.json"
_SAVE_SECONDS = 5.0


class Budget:
    """Counts the wall time of a search; the time of earlier starts is read from its folder.

    Args:
        folder: the search's folder.
        seconds: the whole budget.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.seconds = seconds
        self._file = folder / FILE
        self._before = 0.0
        if self._file.exists():
            self._before = float(json.loads(self._file.read_text("utf-8"))["spent_seconds"])
        self._began = self._saved = clock.seconds()

    @property
    def spent(self) -> float:
        """Seconds of this start and of all earlier ones."""
        return self._before + clock.seconds() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left; negative if more were spent."""
        return self.seconds - self.spent

    def save(self) -> None:
        """Write the time spent, for the next start."""
        self._saved = clock.seconds()
        write_text(self._file, json.dumps({"spent_seconds": round(self.spent, 1)}) + "\n")

    def save_if_due(self) -> None:
        """Write the time spent unless that was done a moment ago; a kill loses no more."""
        if clock.seconds() - self._saved >= _SAVE_SECONDS:
            self.save()
