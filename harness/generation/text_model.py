"""Text models: a source text becomes a prediction, with the settings that were measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from harness.data.examples import encode
from harness.errors import HarnessError, did_you_mean
from harness.evaluation.decoding import BatchSearch, searching
from harness.generation.adapters import use_adapter
from harness.spec.decoding import DecodingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Usage(NamedTuple):
    """Use of a model: its prefix, limits and search.

    Attributes:
        name: a short name of the model.
        prefix: text before every source.
        max_source_length: longest source in tokens; longer ones are truncated.
        settings: settings of the search.
    """

    name: str
    prefix: str
    max_source_length: int
    settings: DecodingSettings


class TextModel(ABC):
    """A model that predicts texts; a context manager that frees what decoding needs.

    It may be used from any thread, by one at a time.

    Args:
        tokenizer: turns texts into token ids.
        usage: prefix, limits and settings.

    Attributes:
        usage: prefix, limits and settings.
        adapters: names of the adapters that ``predict`` takes; empty if there are none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, usage: Usage) -> None:
        self.tokenizer = tokenizer
        self.usage = usage
        self.adapters: tuple[str, ...] = ()

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of sources, with the prefix, and the number that was truncated."""
        prefixed = [self.usage.prefix + text for text in texts]
        return encode(prefixed, self.tokenizer, self.usage.max_source_length)

    @abstractmethod
    def predict(
        self,
        sources: Sequence[Sequence[int]],
        settings: DecodingSettings | None = None,
        adapter: str | None = None,
    ) -> list[str]:
        """Return a prediction for every source of one batch.

        Args:
            sources: token ids, as ``encode`` returns them; all are decoded at once.
            settings: settings of the search; by default those of ``usage``.
            adapter: name of the adapter to use; None is the model without adapters if there are
                several, and else the only one.

        Raises:
            HarnessError: there is no such adapter.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what decoding needs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TorchTextModel(TextModel):
    """A transformers model with the harness's search.

    Args:
        model: an encoder-decoder on its device, whose PEFT adapters have the names of ``adapters``.
        tokenizer: its tokenizer.
        usage: prefix, limits and settings.
        dtype: data type of matrix products.
        shared_beams: see ``Backbone.shared_beams``.
        adapters: names of adapters to switch between; empty if the model is used as it is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        usage: Usage,
        *,
        dtype: torch.dtype = torch.float32,
        shared_beams: bool = False,
        adapters: Sequence[str] = (),
    ) -> None:
        super().__init__(tokenizer, usage)
        self.model = model
        self.adapters = tuple(adapters)
        self._dtype = dtype
        self._shared_beams = shared_beams
        self._contexts = ExitStack()
        self._search: BatchSearch | None = None
        self._active: str | None = None

    def predict(
        self,
        sources: Sequence[Sequence[int]],
        settings: DecodingSettings | None = None,
        adapter: str | None = None,
    ) -> list[str]:
        """Return a prediction for every source of one batch."""
        if adapter is not None and adapter not in self.adapters:
            raise HarnessError(
                f"There is no adapter {adapter!r}.", did_you_mean(adapter, self.adapters)
            )
        if self._search is None or adapter != self._active:
            self.close()
            self._search = self._prepare(adapter)
            self._active = adapter
        return self._search(sources, settings or self.usage.settings)

    def _prepare(self, adapter: str | None) -> BatchSearch:
        """Merge an adapter and convert the weights until ``close``."""
        if self.adapters:
            use_adapter(self.model, adapter)
        context = searching(
            self.model, self.tokenizer, shared_beams=self._shared_beams, dtype=self._dtype
        )
        return self._contexts.enter_context(context)

    def close(self) -> None:
        """Restore the model's weights and mode."""
        self._search = None
        self._contexts.close()
