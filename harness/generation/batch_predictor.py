"""Prediction of many texts: batches by length within a token budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from harness.errors import HarnessError, is_out_of_memory
from harness.generation.text_model import TextModel

BATCH_TOKENS = {"cpu": 1 << 14, "cuda": 1 << 18}
"""Device -> default token budget of a batch."""


class Predicted(NamedTuple):
    """Predictions of a window.

    Attributes:
        texts: a prediction for each source.
        truncated: number of sources that were longer than the model's limit.
        source_tokens: tokens of the sources, with the prefix.
        prediction_tokens: tokens of the predictions.
    """

    texts: list[str]
    truncated: int
    source_tokens: int
    prediction_tokens: int


class BatchPredictor:
    """Predicts texts in batches whose tokens stay within a budget.

    The tokens of a batch are, for each of its examples, those of the longest source and, for each
    beam, those of the longest prediction allowed. If memory runs out, the budget is halved.

    Args:
        model: the model.
        batch_tokens: the budget.
        on_smaller: is called with the new budget when memory ran out.

    Attributes:
        batch_tokens: the present budget.
        tokens: tokens of all predictions so far.
    """

    def __init__(
        self,
        model: TextModel,
        batch_tokens: int,
        on_smaller: Callable[[int], None] = lambda budget: None,
    ) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.tokens = 0
        self._on_smaller = on_smaller

    def predict(
        self,
        texts: Sequence[str],
        adapters: Sequence[str | None],
        earlier: Mapping[int, str] | None = None,
        on_batch: Callable[[dict[int, str]], None] = lambda predictions: None,
    ) -> Predicted:
        """Predict the texts of a window.

        A blank text is not given to the model: its prediction is empty.

        Args:
            texts: the sources.
            adapters: name of the adapter of each source; None is the model without adapters.
            earlier: index of a source -> its prediction, from an earlier call that was killed.
                Known predictions do not change the other batches.
            on_batch: is called after each batch with a mapping from index to prediction.

        Raises:
            HarnessError: one example alone needs more memory than there is.
        """
        filled = [index for index, text in enumerate(texts) if text.strip()]
        ids, truncated = self.model.encode([texts[i] for i in filled]) if filled else ([], 0)
        sources = dict(zip(filled, ids, strict=True))
        predictions = dict(earlier or {})
        tokens = self._count([text for text in predictions.values() if text])
        # One adapter after the other, since switching takes time. The longest come first, so that
        # memory runs out in the first batch or never.
        waiting = sorted(filled, key=lambda i: (adapters[i] or "", -len(sources[i])))
        while waiting:
            batch = self._next_batch(waiting, sources, adapters)
            if not all(i in predictions for i in batch):
                decoded = self._decode(batch, sources, adapters[batch[0]])
                if decoded is None:
                    continue
                predictions |= decoded
                new = self._count([text for text in decoded.values() if text])
                tokens += new
                self.tokens += new
                on_batch(decoded)
            del waiting[: len(batch)]
        found = [predictions.get(i, "") for i in range(len(texts))]
        return Predicted(found, truncated, sum(map(len, ids)), tokens)

    def _next_batch(
        self,
        waiting: Sequence[int],
        sources: Mapping[int, Sequence[int]],
        adapters: Sequence[str | None],
    ) -> list[int]:
        """Return the examples at the front that share an adapter and fit the budget."""
        settings = self.model.usage.settings
        each = len(sources[waiting[0]]) + settings.beams * settings.max_new_tokens
        size = max(1, self.batch_tokens // each)
        return [i for i in waiting[:size] if adapters[i] == adapters[waiting[0]]]

    def _decode(
        self, batch: list[int], sources: Mapping[int, Sequence[int]], adapter: str | None
    ) -> dict[int, str] | None:
        """Return the predictions of a batch; None if memory ran out."""
        try:
            texts = self.model.predict([sources[i] for i in batch], adapter=adapter)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise HarnessError(
                    f"Memory runs out with a single source of {len(sources[batch[0]]):,} tokens.",
                    "Use fewer beams or shorter sources: --beams 1 --max-source-length N",
                ) from error
        else:
            return dict(zip(batch, texts, strict=True))
        # Outside of the handler, whose error holds the tensors of the batch.
        _free()
        settings = self.model.usage.settings
        each = len(sources[batch[0]]) + settings.beams * settings.max_new_tokens
        self.batch_tokens = max(1, min(self.batch_tokens, len(batch) * each) // 2)
        self._on_smaller(self.batch_tokens)
        return None

    def _count(self, texts: list[str]) -> int:
        """Return the tokens of texts, as the tokenizer counts them."""
        if not texts:
            return 0
        return sum(map(len, self.model.tokenizer(texts, verbose=False).input_ids))


def _free() -> None:
    """Return the device's unused memory, so that the next batch finds it in one piece."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
