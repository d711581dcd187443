"""Conversion of texts to token ids, by several processes if there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api.task import Task
from harness.data.examples import Examples, TokenizedSplit, Tokens, encode_rows
from harness.data.progress import rows_done
from harness.interrupts import end_with_parent, ignore_sigint_in_children, process_pool

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000
"""Rows that are tokenized at once."""
MANY = 50_000
"""Rows from which on several processes are worth the seconds that they take to start."""


@dataclass(frozen=True)
class Limits:
    """Text before every source, and the longest source and target in tokens."""

    prefix: str
    source: int
    target: int

    @classmethod
    def of(cls, task: Task[Any]) -> Limits:
        """Return the limits of a task."""
        return cls(task.prefix, task.max_source_length, task.max_target_length)


@dataclass(frozen=True)
class TokenizedRows:
    """Some consecutive rows as token ids.

    Attributes:
        sources: token ids of the sources.
        targets: token ids of the targets.
        long_sources: whether each source was longer than the limit.
        long_targets: whether each target was longer than the limit.
    """

    sources: Tokens
    targets: Tokens
    long_sources: NDArray[np.bool_]
    long_targets: NDArray[np.bool_]


def tokenize(split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task[Any]) -> TokenizedSplit:
    """Convert a split to token ids in memory.

    Args:
        split: the examples, with the text columns source and target.
        tokenizer: the backbone's tokenizer.
        task: provides the prefix and the limits in tokens.
    """
    chunks = list(tokenized_chunks(split, tokenizer, Limits.of(task)))
    examples = Examples(
        Tokens.joined([chunk.sources for chunk in chunks]),
        Tokens.joined([chunk.targets for chunk in chunks]),
    )
    return TokenizedSplit(
        examples,
        sum(int(chunk.long_sources.sum()) for chunk in chunks),
        sum(int(chunk.long_targets.sum()) for chunk in chunks),
    )


def tokenized_chunks(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> Iterator[TokenizedRows]:
    """Yield the token ids of a split in order, ``CHUNK`` rows at a time.

    The tokenizers library computes in several threads, but a quarter of the time goes to building
    Python lists, which only one thread can do. With ``MANY`` rows, processes share all of it.
    ``Dataset.map`` would fork this process, whose threads of torch a fork does not have.
    """
    if len(split) < MANY:
        for _, texts in _texts(split):
            yield _tokenize(*texts, tokenizer, limits)
        return
    processes = usable_cores()
    pending: deque[tuple[int, Future[TokenizedRows]]] = deque()
    with process_pool(processes, _begin, tokenizer, limits) as pool:
        for done, texts in _texts(split):
            with ignore_sigint_in_children():
                pending.append((done, pool.submit(_tokenize_in_worker, *texts)))
            # So many are waiting that no process runs out of work, and memory stays flat.
            if len(pending) > 2 * processes:
                yield _next(pending)
        while pending:
            yield _next(pending)


def usable_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _texts(split: Dataset) -> Iterator[tuple[int, tuple[list[str], list[str]]]]:
    """Yield (number of rows so far, the sources and targets of the next rows)."""
    for start in range(0, len(split), CHUNK):
        rows = split[start : start + CHUNK]
        yield start + len(rows["source"]), (list(rows["source"]), list(rows["target"]))


def _next(pending: deque[tuple[int, Future[TokenizedRows]]]) -> TokenizedRows:
    done, future = pending.popleft()
    rows = future.result()
    rows_done(done)
    return rows


def _tokenize(
    sources: Sequence[str],
    targets: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
) -> TokenizedRows:
    texts = [limits.prefix + text for text in sources]
    source_ids, long_sources = encode_rows(texts, tokenizer, limits.source)
    target_ids, long_targets = encode_rows(targets, tokenizer, limits.target)
    return TokenizedRows(Tokens.of(source_ids), Tokens.of(target_ids), long_sources, long_targets)


_worker: tuple[PreTrainedTokenizerBase, Limits]
"""The tokenizer and the limits, in a process that tokenizes."""


def _begin(tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
    """Prepare a process that tokenizes."""
    global _worker  # noqa: PLW0603
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes share the work already.
    _worker = tokenizer, limits


def _tokenize_in_worker(sources: list[str], targets: list[str]) -> TokenizedRows:
    return _tokenize(sources, targets, *_worker)
