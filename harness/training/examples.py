"""Examples as token ids, and what was cut to make them fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.task import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000


@dataclass(frozen=True)
class Example:
    """One pair of texts as token ids, each ended by the tokenizer's end of sequence."""

    source: list[int]
    target: list[int]


@dataclass(frozen=True)
class TokenizedSplit:
    """A split ready for training.

    Attributes:
        examples: in the order of the split.
        cut_sources: how many sources were longer than the task's limit and lost their end.
        cut_targets: how many targets were; only training sees the cut ones, scores never do.
    """

    examples: list[Example]
    cut_sources: int
    cut_targets: int


def tokenize(split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task[Any]) -> TokenizedSplit:
    """Turn a split into token ids.

    Args:
        split: has the text columns source and target.
        tokenizer: the backbone's.
        task: for its prefix and its limits in tokens.
    """
    sources: list[list[int]] = []
    targets: list[list[int]] = []
    cut_sources = cut_targets = 0
    for start in range(0, len(split), _CHUNK):
        rows = split[start : start + _CHUNK]
        texts = [task.prefix + text for text in rows["source"]]
        ids, cut = _encode(texts, tokenizer, task.max_source_length)
        sources += ids
        cut_sources += cut
        ids, cut = _encode(rows["target"], tokenizer, task.max_target_length)
        targets += ids
        cut_targets += cut
    examples = [Example(s, t) for s, t in zip(sources, targets, strict=True)]
    return TokenizedSplit(examples, cut_sources, cut_targets)


def _encode(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], int]:
    """Return ids of at most ``limit`` tokens, and how many texts were longer.

    What is cut keeps its closing token: a model whose targets lack it would never learn to stop.
    """
    ids: list[list[int]] = tokenizer(list(texts), verbose=False).input_ids
    longer = [row for row in ids if len(row) > limit]
    for row in longer:
        row[limit - 1 :] = row[-1:]
    return ids, len(longer)
