"""Pairs of source and target: which rows of a table are usable as examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def usable_pairs(
    ids: Iterable[str], sources: Iterable[str | None], targets: Iterable[str | None]
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Leave out rows whose source or target is missing or blank.

    Returns:
        (the columns id, source and target of the rest; why rows were left out -> how many)
    """
    kept: dict[str, list[str]] = {"id": [], "source": [], "target": []}
    reasons: Counter[str] = Counter()
    for identity, source, target in zip(ids, sources, targets, strict=True):
        if not source or source.isspace():
            reasons[_reason("source", source)] += 1
        elif not target or target.isspace():
            reasons[_reason("target", target)] += 1
        else:
            kept["id"].append(identity)
            kept["source"].append(source)
            kept["target"].append(target)
    return kept, reasons


def _reason(role: str, text: str | None) -> str:
    return f"{role} is missing" if text is None else f"{role} is empty"
