"""Recognition of task references that are paths or hub ids."""

from __future__ import annotations

from pathlib import Path

from harness.data.kinds import DATA_SUFFIXES

HUB_PREFIX = "hub:"


def is_data_path(reference: str) -> bool:
    """Return whether the reference is a path, ends like a data file, or exists."""
    written = reference.startswith(("/", "./", "../", "~")) or reference.endswith(DATA_SUFFIXES)
    return written or Path(reference).exists()


def is_hub_reference(reference: str) -> bool:
    """Return whether the reference has the form ``hub:org/name``."""
    return reference.startswith(HUB_PREFIX)
