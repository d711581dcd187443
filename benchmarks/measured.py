"""Measurements of a case so far, kept in a file from which a stopped benchmark resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clock import Window
from work import Case


class Measured:
    """Measurements of one case; each is taken only if the file does not hold it yet.

    Args:
        measurements: the measurements of the case in the file; they are changed in place.
        save: writes the file.
    """

    def __init__(self, measurements: dict[str, Any], save: Callable[[], None]) -> None:
        self.measurements = measurements
        self.save = save
        for part in ("trials", "windows", "skipped"):
            measurements.setdefault(part, {})

    @property
    def trials(self) -> dict[str, Window]:
        """Contender -> its short window."""
        return {name: Window(**stored) for name, stored in self.measurements["trials"].items()}

    @property
    def windows(self) -> dict[str, list[Window]]:
        """Contender -> its long windows."""
        return {
            n: [Window(**w) for w in stored] for n, stored in self.measurements["windows"].items()
        }

    def skip(self, name: str, reason: str | None) -> None:
        """Store the reason why a contender was not tried; None stores nothing."""
        if reason is not None:
            self.measurements["skipped"][name] = reason
            self.save()

    def once(self, name: str, measure: Callable[[], float]) -> float:
        """Return a stored number; measure and store it first if it is missing."""
        if name not in self.measurements:
            self.measurements[name] = measure()
            self.save()
        number: float = self.measurements[name]
        return number

    def trial(self, name: str, measure: Callable[[], Window]) -> None:
        """Measure a contender's short window unless it is stored or the contender was skipped."""
        if name not in self.measurements["trials"] and name not in self.measurements["skipped"]:
            self.measurements["trials"][name] = measure().record()
            self.save()

    def window(self, name: str, number: int, measure: Callable[[], Window]) -> None:
        """Measure a contender's long window unless it is stored.

        Args:
            name: name of the contender.
            number: number of the pass, from 0.
            measure: runs the window.
        """
        windows = self.measurements["windows"].setdefault(name, [])
        if len(windows) == number:
            windows.append(measure().record())
            self.save()


def is_of(measurements: dict[str, Any], case: Case) -> bool:
    """Return whether measurements are those of a case."""
    return all(measurements.get(key) == value for key, value in asdict(case).items())


def start(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of an earlier call with equal settings, code and machine, if any."""
    settings = {**settings, "benchmark": _own_hash()}
    if file.is_file():
        earlier: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if all(_comparable(earlier, key) == _comparable(settings, key) for key in settings):
            return earlier
        print(f"{file} is replaced: its machine, versions or settings were different.")
    return {**settings, "cases": []}


def _comparable(record: dict[str, Any], key: str) -> Any:
    value = record.get(key)
    # The commit is left out: it changes with any file, and the hash already covers the code.
    return {**value, "git": None} if key == "fingerprint" and value else value


def _own_hash() -> str:
    """Hash the code that generates the work and measures it."""
    names = ("clock.py", "contenders.py", "trainer.py", "work.py")
    texts = b"".join(Path(__file__).with_name(name).read_bytes() for name in names)
    return hashlib.sha256(texts).hexdigest()[:16]
