"""Errors that speak to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """A mistake that the user can mend; shown without a traceback.

    Args:
        message: what is wrong, and where.
        hint: the command or edit that mends it.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BusyError(HarnessError):
    """Another process is at work on it; sysexits.h calls this a temporary failure."""

    exit_code = 75


class NotMeasurableError(Exception):
    """A number that cannot be measured here; its text is the reason that a report gives."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests near names and lists all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    suggestion = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return f"{suggestion}Known: {', '.join(names) or 'none'}."
