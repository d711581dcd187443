"""Data of a task from Python: ``harness.stats`` and ``harness.prepare``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.api.plugins import installed
from harness.api.task import Preparation, Prepared, Splits, Task
from harness.data.text_statistics import describe_texts
from harness.records.record import Record

_ROWS_AT_A_TIME = 1000


class SideStatistics(Record):
    """Means over the sources, or over the targets."""

    sentences: float
    """Mean number of sentences."""
    words: float
    """Mean number of words."""


class TaskStatistics(Record):
    """Statistics of a task's data; means are over all splits."""

    task: str
    """Name of the task."""
    rows: dict[str, int]
    """Split -> number of its rows."""
    source: SideStatistics
    """Lengths of the sources."""
    target: SideStatistics
    """Lengths of the targets."""
    novel_unigrams_pct: float | None
    """Distinct words of a target that are not in its source, in percent; null if no target has
    words."""
    novel_bigrams_pct: float | None
    """Distinct pairs of neighbouring words of a target that are not in its source, in percent."""
    skipped: dict[str, int]
    """Reason why rows were left out -> number of rows."""
    leakage: dict[str, int]
    """Kind of duplicate -> number of pairs of similar sources in different splits."""
    notes: list[str]
    """Sentences about what was guessed while reading, with the option that decides it."""
    cut_sources: int | None = None
    """Sources longer than the task's limit; null without a backbone, whose tokens are counted."""
    cut_targets: int | None = None
    """Targets longer than the task's limit; null without a backbone."""


def stats(
    task: str,
    *,
    task_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    backbone: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TaskStatistics:
    """Compute a task's statistics: rows, sentences, words, and new n-grams in the targets.

    Args:
        task: a registered name, a file, a folder or a data set of the hub.
        task_options: options of the task.
        seed: seed of the splits, for tasks without fixed splits.
        backbone: also count the texts that are longer than the task's limits, with the tokenizer
            of this backbone.
        on_progress: is called with the number of rows read, and that of all rows.

    Returns:
        The statistics.

    Raises:
        HarnessError: an unknown name or option, or data that are not on this machine.

    Example:
        >>> harness.stats("radiology_demo").rows["train"]
    """
    chosen = installed().task(task, dict(task_options or {}))
    splits = chosen.splits(seed)
    texts = describe_texts(_pairs(splits, on_progress))
    sources, targets = _count_cut(backbone, chosen, splits) if backbone else (None, None)
    return TaskStatistics(
        task=chosen.name,
        rows={name: len(part) for name, part in _parts(splits).items()},
        source=SideStatistics(sentences=texts.source_sentences, words=texts.source_words),
        target=SideStatistics(sentences=texts.target_sentences, words=texts.target_words),
        novel_unigrams_pct=texts.novel_unigrams_pct,
        novel_bigrams_pct=texts.novel_bigrams_pct,
        skipped=splits.skipped,
        leakage=splits.leakage,
        notes=list(splits.notes),
        cut_sources=sources,
        cut_targets=targets,
    )


def prepare(
    task: str,
    out: str | Path,
    *,
    notes: str | Path | None = None,
    synthetic: int | None = None,
    seed: int = 0,
    sections: str | Path | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    on_progress: Callable[[int, float], None] = lambda notes, share: None,
) -> Prepared:
    """Build a task's data from its raw file.

    Args:
        task: the task whose data are built.
        out: the folder to create; it is complete or absent.
        notes: the raw file.
        synthetic: generate as many notes in the raw file's format, and use them instead.
        seed: seed of the synthetic notes.
        sections: a file of section titles in place of the task's own.
        encoding: encoding of the raw file; UTF-8 by default.
        delimiter: delimiter of the raw file; detected by default.
        on_progress: is called with the number of notes read, and the share of the file.

    Returns:
        The numbers of examples kept and left out.

    Raises:
        HarnessError: the task has no raw file, the file is missing or broken, or the folder exists.

    Example:
        >>> harness.prepare("mimic_radiology", "data/mimic_radiology", synthetic=1000).kept
    """
    task_class: type[Task[Any]] = installed().tasks.find(task).load()
    return task_class.prepare(
        Preparation(
            Path(out),
            None if notes is None else Path(notes),
            synthetic,
            seed,
            None if sections is None else Path(sections),
            on_progress,
            encoding=encoding,
            delimiter=delimiter,
        )
    )


def _parts(splits: Splits) -> dict[str, Any]:
    return {"train": splits.train, "eval": splits.eval, "test": splits.test}


def _pairs(splits: Splits, on_progress: Callable[[int, int], None]) -> Iterator[tuple[str, str]]:
    parts = _parts(splits).values()
    done, total = 0, sum(map(len, parts))
    for part in parts:
        for batch in part.iter(batch_size=_ROWS_AT_A_TIME):
            yield from zip(batch["source"], batch["target"], strict=True)
            done += len(batch["source"])
            on_progress(done, total)


def _count_cut(backbone: str, task: Task[Any], splits: Splits) -> tuple[int, int]:
    """Return how many sources and how many targets are longer than the task's limits."""
    from harness.data.token_cache import tokenize_once

    tokenizer = installed().backbone(backbone).tokenizer()
    parts = [tokenize_once(part, tokenizer, task) for part in _parts(splits).values()]
    return (
        sum(part.truncated_sources for part in parts),
        sum(part.truncated_targets for part in parts),
    )
