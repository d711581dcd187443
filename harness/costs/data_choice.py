"""Sources of batches that a user can choose from."""

from __future__ import annotations

from enum import StrEnum


class DataChoice(StrEnum):
    """Source of the batches."""

    AUTO = "auto"
    """The task's own data where they and the tokenizer are on this machine, else its lengths."""
    OWN = "own"
    """The task's own data."""
    LENGTHS = "lengths"
    """Batches of the task's typical lengths; needs no data."""
