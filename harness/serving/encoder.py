"""Tokenization in a thread of its own, beside the thread that decodes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.data.examples import encode

if TYPE_CHECKING:
    from harness.generation.text_model import TextModel


class Encoded(NamedTuple):
    """A source as token ids.

    Attributes:
        ids: the token ids, at most as many as the model takes.
        truncated: whether the text was longer.
    """

    ids: list[int]
    truncated: bool


class Encoder:
    """Converts texts to token ids.

    It has a tokenizer of its own: one that two threads use at once can fail.

    Args:
        model: the model whose tokenizer, prefix and limit are used.
    """

    def __init__(self, model: TextModel) -> None:
        self._tokenizer = copy.deepcopy(model.tokenizer)
        self._usage = model.usage

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the token ids of each text, with the model's prefix."""
        encoded = []
        for text in texts:
            (ids,), truncated = encode(
                [self._usage.prefix + text], self._tokenizer, self._usage.max_source_length
            )
            encoded.append(Encoded(ids, truncated > 0))
        return encoded

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        if not texts:
            return []
        rows = self._tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
        return [len(row) for row in rows]
