"""The rule for what was not measured: each null field of a record has a reason beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class HasReasons(Protocol):
    """A record that says why fields are null."""

    @property
    def not_measured(self) -> dict[str, str]:
        """Path of a null field -> reason; a dot leads into a record within."""


def explain_nulls(record: HasReasons, reason: str, *paths: str) -> None:
    """Give a reason for each of some fields that is null, and drop the reasons of the others.

    A field of a record that is itself null needs no reason: the record has one.

    Args:
        record: gets the reasons.
        reason: why the fields are null.
        paths: the fields, for example ``speed`` or ``fingerprint.driver``.
    """
    for path in paths:
        if _is_null(record, path):
            record.not_measured[path] = reason
        else:
            record.not_measured.pop(path, None)


def _is_null(record: Any, path: str) -> bool:
    if isinstance(record, Mapping):
        # A key may hold dots; a field's name does not.
        key, _, field = path.rpartition(".")
        return _is_null(record[key], field)
    name, _, rest = path.partition(".")
    value = getattr(record, name)
    if not rest:
        return value is None
    return value is not None and _is_null(value, rest)
