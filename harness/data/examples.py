"""Examples as token ids, with counts of truncated texts."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from harness.api.task import Task
from harness.errors import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.api.backbone import Backbone


@dataclass(frozen=True)
class Example:
    """One source and target as token ids, each with the tokenizer's end token."""

    source: list[int]
    target: list[int]


class TokenRows(Sequence[list[int]]):
    """Sequences of token ids, in memory or mapped from a file.

    Attributes:
        lengths: number of tokens of each sequence; int32.
    """

    lengths: NDArray[np.int32]

    @property
    def longest(self) -> int:
        """The length of the longest sequence; 0 if there is none."""
        return int(self.lengths.max(initial=0))

    @abstractmethod
    def pieces(self) -> Iterator[NDArray[np.int32]]:
        """Yield the token ids of all sequences in order, some at a time."""

    def sha256(self) -> str:
        """Return a hash of all token ids and lengths."""
        digest = sha256()
        for ids in self.pieces():
            digest.update(np.ascontiguousarray(ids).tobytes())
        digest.update(np.cumsum(self.lengths, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self.row(i) for i in range(*index.indices(len(self)))]
        return self.row(range(len(self))[index])

    @abstractmethod
    def row(self, index: int) -> list[int]:
        """Return a sequence; its index is not negative."""


class Tokens(TokenRows):
    """Concatenated sequences in memory, with four bytes per token; lists of Python integers need
    ten times more.

    Args:
        ids: token ids of all sequences.
        ends: end of each sequence.
    """

    def __init__(self, ids: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        self.ids = ids
        self.ends = ends
        self.lengths = np.diff(ends, prepend=0).astype(np.int32)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Tokens:
        """Concatenate rows."""
        ids = np.array([token for row in rows for token in row], np.int32)
        return cls(ids, np.cumsum([len(row) for row in rows], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Concatenate the sequences of all parts."""
        before = np.cumsum([0, *(len(part.ids) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, before, strict=False)]
        ids = [part.ids for part in parts]
        empty = cls.of([])
        return cls(np.concatenate([empty.ids, *ids]), np.concatenate([empty.ends, *ends]))

    def pieces(self) -> Iterator[NDArray[np.int32]]:
        """Yield all token ids at once."""
        yield self.ids

    def row(self, index: int) -> list[int]:
        """Return a sequence."""
        begin = self.ends[index - 1] if index else 0
        row: list[int] = self.ids[begin : self.ends[index]].tolist()
        return row


class Examples(Sequence[Example]):
    """A sequence of examples, which are built on access.

    Args:
        sources: token ids of the sources.
        targets: token ids of the targets.
    """

    def __init__(self, sources: TokenRows, targets: TokenRows) -> None:
        self.sources = sources
        self.targets = targets

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Number of tokens of each example, source and target together."""
        return self.sources.lengths + self.targets.lengths

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return Example(self.sources[index], self.targets[index])


@dataclass(frozen=True)
class TokenizedSplit:
    """A split ready for training.

    Attributes:
        examples: examples in the order of the split.
        truncated_sources: number of sources that are longer than the task's limit; they are
            truncated at the end.
        truncated_targets: number of targets that are longer; they are truncated in training, but
            not for scores.
    """

    examples: Examples
    truncated_sources: int
    truncated_targets: int


def longest_examples(examples: Sequence[Example], count: int) -> list[Example]:
    """Return the examples with the most tokens, the longest first."""
    if isinstance(examples, Examples):
        # Without an object for each example, of which there may be millions.
        order = np.argsort(-examples.lengths, kind="stable")[:count]
        return [examples[index] for index in order.tolist()]
    return heapq.nlargest(count, examples, key=lambda e: len(e.source) + len(e.target))


def check_fit(split: TokenizedSplit, backbone: Backbone) -> None:
    """Check that no sequence has more tokens than the backbone has positions.

    Raises:
        HarnessError: a sequence is longer.
    """
    limit = backbone.longest_sequence()
    sides = (("source", split.examples.sources), ("target", split.examples.targets))
    for side, tokens in sides:
        if limit is not None and tokens.longest > limit:
            raise HarnessError(
                f"A {side} has {tokens.longest:,} tokens, but {backbone.name} has positions for "
                f"{limit:,}.",
                f"Truncate it: --set task_options.max_{side}_length={limit}",
            )


def check_useful(
    split: TokenizedSplit, tokenizer: PreTrainedTokenizerBase, task: Task[Any]
) -> None:
    """Check that the length limits leave text of at least one source and one target.

    Raises:
        HarnessError: only the prefix and the special tokens are left.
    """
    sides = (
        ("source", split.examples.sources, split.truncated_sources, task.prefix.rstrip()),
        ("target", split.examples.targets, split.truncated_targets, ""),
    )
    for side, tokens, cut, prefix in sides:
        bare = len(tokenizer(prefix, verbose=False).input_ids)
        if cut == len(tokens) and tokens.longest <= bare:
            limit = task.max_source_length if side == "source" else task.max_target_length
            beside = f"the prefix {task.prefix!r} and " if prefix else ""
            raise HarnessError(
                f"All {cut:,} {side}s are truncated to {limit} tokens, and {beside}the special "
                "tokens fill these: "
                "no text is left.",
                f"Raise the limit: --set task_options.max_{side}_length=N",
            )


def encode(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], int]:
    """Return ids of at most ``limit`` tokens, and the number of texts that were longer.

    Truncated texts keep their end token: a model whose targets lack it would not learn to stop.
    """
    ids, longer = encode_rows(texts, tokenizer, limit)
    return ids, int(longer.sum())


def encode_rows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], NDArray[np.bool_]]:
    """Return ids of at most ``limit`` tokens, and which texts were longer; see ``encode``."""
    ids: list[list[int]] = tokenizer(list(texts), verbose=False).input_ids
    longer = np.array([len(row) > limit for row in ids], np.bool_)
    for number in np.flatnonzero(longer):
        row = ids[number]
        row[limit - 1 :] = row[-1:]
    return ids, longer
