"""A file of the predictions so far, from which a stopped run resumes decoding."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from harness import clock


class PartialPredictions:
    """A file of predictions that grows by one line per batch.

    An incomplete line at the end, which a process that died may leave, is removed.

    Args:
        path: the file; it need not exist.

    Attributes:
        predictions: index of a source -> its prediction, for all predictions in the file.
        seconds: wall time that these predictions took.
    """

    def __init__(self, path: Path) -> None:
        self.predictions: dict[int, str] = {}
        self.seconds = 0.0
        self._path = path
        path.touch()
        complete_bytes = 0
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError:
                break
            self.predictions |= {int(index): text for index, text in entry["predictions"].items()}
            self.seconds = entry["seconds"]
            complete_bytes += len(line)
        os.truncate(path, complete_bytes)
        self._began = clock.seconds() - self.seconds

    def add(self, predictions: Mapping[int, str]) -> None:
        """Append the predictions of a batch; they are on disk when this returns."""
        self.predictions |= predictions
        self.seconds = clock.seconds() - self._began
        entry = {"seconds": self.seconds, "predictions": predictions}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
