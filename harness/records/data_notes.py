"""Sentences about a task's data: the rows that were left out and the texts that were truncated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from harness.records.report import Data


def data_notes(data: Data) -> list[str]:
    """Say what was guessed, left out and cut, with shares and the option that changes it."""
    used = data.train + data.eval + data.test
    return [
        *data.notes,
        *left_out_notes(data.skipped, data.rows or used),
        *cut_notes(data.cut_sources, data.cut_targets, used),
    ]


def data_shares(runs: Iterable[Data]) -> Iterator[str]:
    """Yield what was left out and cut in several runs: the largest share, where these differ."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    count = 0
    for data in runs:
        count += 1
        used = data.train + data.eval + data.test
        kept = data.rows or used
        total = kept + sum(data.skipped.values())
        for reason, skipped in data.skipped.items():
            (note,) = left_out_notes({reason: skipped}, total - skipped)
            found[reason].append((skipped / total, note))
        for sources, targets in ((data.cut_sources, 0), (0, data.cut_targets)):
            for note in cut_notes(sources, targets, used):
                found["source" if sources else "target"].append(((sources + targets) / used, note))
    for notes in found.values():
        alike = len(notes) == count and len(set(notes)) == 1
        yield max(notes)[1] if alike else f"Up to {max(notes)[1]}"


def left_out_notes(skipped: Mapping[str, int], kept: int) -> Iterator[str]:
    """Yield a sentence for each reason why rows were left out.

    Args:
        skipped: reason -> how many.
        kept: how many rows are left.
    """
    total = kept + sum(skipped.values())
    for reason, count in skipped.items():
        yield (
            f"{_share(count, total)} rows were left out: {reason}. Mend them, or name other "
            "columns: --source-column, --target-column"
        )


def cut_notes(sources: int, targets: int, total: int) -> Iterator[str]:
    """Yield a sentence for the sources and one for the targets that were cut, if any."""
    if sources:
        yield (
            f"{_share(sources, total)} sources are longer than the limit and lose their end: "
            "--set task_options.max_source_length=N"
        )
    if targets:
        yield (
            f"{_share(targets, total)} targets are longer than the limit; training sees them cut, "
            "scores never do: --set task_options.max_target_length=N"
        )


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    written = "<0.1" if percent < 0.1 else f"{percent:.1f}".removesuffix(".0")
    return f"{count:,} of {total:,} ({written} %)"
