"""Nested mappings as paths and leaves, for files that hold flat names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, each with its path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path of ``flat``."""
    *groups, key = path.split("/")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value
