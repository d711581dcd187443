"""A text model without weights, whose predictions show which text, adapter and batch they had."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from harness.generation.text_model import TextModel, Usage
from harness.spec.decoding import DecodingSettings


class CharacterTokenizer:
    """A tokenizer with a token per character."""

    def __call__(self, texts: Sequence[str], verbose: bool) -> CharacterTokenizer:
        self.input_ids = [[ord(character) for character in text] for text in texts]
        return self


class Upper(TextModel):
    """Predicts the source in capital letters, after the name of the adapter.

    Attributes:
        batches: number of sources, and adapter, of each batch.
        room: largest batch that fits in memory.
    """

    def __init__(self, beams: int = 1, max_new_tokens: int = 10) -> None:
        settings = DecodingSettings(beams=beams, max_new_tokens=max_new_tokens)
        super().__init__(CharacterTokenizer(), Usage("upper", "", 1000, settings))
        self.adapters = ("a", "b")
        self.batches: list[tuple[int, str | None]] = []
        self.room = 10**9

    def predict(
        self,
        sources: Sequence[Sequence[int]],
        settings: DecodingSettings | None = None,
        adapter: str | None = None,
    ) -> list[str]:
        if len(sources) > self.room:
            raise MemoryError
        self.batches.append((len(sources), adapter))
        texts = ["".join(map(chr, source)) for source in sources]
        return [(f"{adapter}:" if adapter else "") + text.upper() for text in texts]

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def upper() -> Callable[..., Upper]:
    """The class of a model that predicts capital letters."""
    return Upper
