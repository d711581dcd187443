"""Pairs of source and target: selects the rows of a table that are usable as examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def usable_pairs(
    ids: Iterable[str],
    sources: Iterable[str | None],
    targets: Iterable[str | None],
    more: Mapping[str, Sequence[object]] | None = None,
) -> tuple[dict[str, list[Any]], Counter[str]]:
    """Leave out rows whose source or target is missing or blank.

    Args:
        ids: id of each row.
        sources: source of each row.
        targets: target of each row.
        more: further columns, which keep the same rows.

    Returns:
        (the columns id, source, target and ``more`` of the kept rows; reason -> number of rows
        that were left out)
    """
    more = more or {}
    kept: dict[str, list[Any]] = {"id": [], "source": [], "target": [], **{c: [] for c in more}}
    reasons: Counter[str] = Counter()
    for number, (identity, source, target) in enumerate(zip(ids, sources, targets, strict=True)):
        if not source or source.isspace():
            reasons[_reason("source", source)] += 1
        elif not target or target.isspace():
            reasons[_reason("target", target)] += 1
        else:
            kept["id"].append(identity)
            kept["source"].append(source)
            kept["target"].append(target)
            for name, values in more.items():
                kept[name].append(values[number])
    return kept, reasons


def _reason(role: str, text: str | None) -> str:
    return f"{role} is missing" if text is None else f"{role} is empty"
