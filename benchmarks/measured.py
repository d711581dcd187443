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
    """The windows of one case; what is there is not measured again.

    Args:
        found: the case's part of the file.
        save: writes the file.
    """

    def __init__(self, found: dict[str, Any], save: Callable[[], None]) -> None:
        self.found = found
        self.save = save
        for part in ("trials", "windows", "skipped"):
            found.setdefault(part, {})

    @property
    def trials(self) -> dict[str, Window]:
        """Contender -> its short window."""
        return {name: Window(**stored) for name, stored in self.found["trials"].items()}

    @property
    def windows(self) -> dict[str, list[Window]]:
        """Contender -> its long windows."""
        return {n: [Window(**w) for w in stored] for n, stored in self.found["windows"].items()}

    def skip(self, name: str, reason: str | None) -> None:
        """Note why something was not tried."""
        if reason is not None:
            self.found["skipped"][name] = reason
            self.save()

    def once(self, name: str, measure: Callable[[], float]) -> float:
        """Return a number, measured if it is not there."""
        if name not in self.found:
            self.found[name] = measure()
            self.save()
        number: float = self.found[name]
        return number

    def trial(self, name: str, measure: Callable[[], Window]) -> None:
        """Measure a short window, unless it was tried or skipped."""
        if name not in self.found["trials"] and name not in self.found["skipped"]:
            self.found["trials"][name] = measure().record()
            self.save()

    def window(self, name: str, number: int, measure: Callable[[], Window]) -> None:
        """Measure a long window.

        Args:
            name: of the contender.
            number: of the pass, from 0.
            measure: runs it.
        """
        windows = self.found["windows"].setdefault(name, [])
        if len(windows) == number:
            windows.append(measure().record())
            self.save()


def is_of(found: dict[str, Any], case: Case) -> bool:
    """Return whether this was found for a case."""
    return all(found.get(key) == value for key, value in asdict(case).items())


def start(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier call found with the same code in the same way on the same machine."""
    settings = {**settings, "benchmark": _own_hash()}
    if file.is_file():
        before: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if all(_comparable(before, key) == _comparable(settings, key) for key in settings):
            return before
        print(f"{file} was measured otherwise (machine, versions, settings) and is replaced.")
    return {**settings, "cases": []}


def _comparable(record: dict[str, Any], key: str) -> Any:
    value = record.get(key)
    # The commit says nothing that the code's hash does not, and changes with any other file.
    return {**value, "git": None} if key == "fingerprint" and value else value


def _own_hash() -> str:
    """Hash the code that makes and times the work."""
    names = ("clock.py", "contenders.py", "trainer.py", "work.py")
    texts = b"".join(Path(__file__).with_name(name).read_bytes() for name in names)
    return hashlib.sha256(texts).hexdigest()[:16]
