"""Predictions as they are made, so that a run which is stopped need not make them again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from harness import clock


class PartialPredictions:
    """A file of predictions that grows by a line a batch.

    A line is there whole or not at all: what a process that died left of one is cut off.

    Args:
        path: of the file; need not exist.

    Attributes:
        known: the predictions that it holds, by the place of their source.
        seconds: wall time that these took.
    """

    def __init__(self, path: Path) -> None:
        self.known: dict[int, str] = {}
        self.seconds = 0.0
        self._path = path
        path.touch()
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError:
                break
            self.known |= {int(place): text for place, text in entry["predictions"].items()}
            self.seconds = entry["seconds"]
            whole += len(line)
        os.truncate(path, whole)
        self._began = clock.seconds() - self.seconds

    def add(self, predictions: Mapping[int, str]) -> None:
        """Write a batch down; it is on disk when this returns."""
        self.known |= predictions
        self.seconds = clock.seconds() - self._began
        entry = {"seconds": self.seconds, "predictions": predictions}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
