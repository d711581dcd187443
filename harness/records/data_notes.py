"""Notes on a task's data: rows that were left out, and texts that were truncated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from harness.records.report import Data


def data_notes(data: Data) -> list[str]:
    """Return notes on what was guessed, left out and truncated, with the options that change it."""
    used = data.train + data.eval + data.test
    return [
        *data.notes,
        *left_out_notes(data.skipped, data.rows or used),
        *cut_notes(data.cut_sources, data.cut_targets, used),
    ]


def data_shares(runs: Iterable[Data]) -> Iterator[str]:
    """Yield the notes on rows left out and texts truncated in several runs.

    If the runs differ, a note gives the largest share.

    Args:
        runs: the data of each run.
    """
    shares: dict[str, list[tuple[float, str]]] = defaultdict(list)
    count = 0
    for data in runs:
        count += 1
        used = data.train + data.eval + data.test
        kept = data.rows or used
        total = kept + sum(data.skipped.values())
        for reason, skipped in data.skipped.items():
            (note,) = left_out_notes({reason: skipped}, total - skipped)
            shares[reason].append((skipped / total, note))
        for sources, targets in ((data.cut_sources, 0), (0, data.cut_targets)):
            for note in cut_notes(sources, targets, used):
                side = "source" if sources else "target"
                shares[side].append(((sources + targets) / used, note))
    for notes in shares.values():
        is_same = len(notes) == count and len(set(notes)) == 1
        yield max(notes)[1] if is_same else f"Up to {max(notes)[1]}"


def left_out_notes(skipped: Mapping[str, int], kept: int) -> Iterator[str]:
    """Yield a sentence for each reason why rows were left out.

    Args:
        skipped: reason -> number of rows left out.
        kept: number of rows that are used.
    """
    total = kept + sum(skipped.values())
    for reason, count in skipped.items():
        yield (
            f"{_share(count, total)} rows were left out: {reason}; correct them, or name other "
            "columns (--source-column, --target-column)."
        )


def cut_notes(sources: int, targets: int, total: int, option: str = "--set") -> Iterator[str]:
    """Yield a sentence for truncated sources and one for truncated targets, if there are any.

    Args:
        sources: number of truncated sources.
        targets: number of truncated targets.
        total: number of examples.
        option: the option that changes a limit, in words.
    """
    if sources:
        yield (
            f"{_share(sources, total)} sources are longer than the limit and are truncated "
            f"({option} task_options.max_source_length=N changes it)."
        )
    if targets:
        yield (
            f"{_share(targets, total)} targets are longer than the limit and are truncated for "
            f"training, not for scores ({option} task_options.max_target_length=N changes it)."
        )


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    written = "<0.1" if percent < 0.1 else f"{percent:.1f}".removesuffix(".0")
    return f"{count:,} of {total:,} ({written} %)"
