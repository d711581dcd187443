"""Decoding of one batch: its predictions, or the reason why it has none."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import clock
from harness.errors import is_out_of_memory
from harness.serving.batch_queue import Item
from harness.serving.metrics import Metrics
from harness.serving.rate import Rate
from harness.serving.refusal import RefusalError

if TYPE_CHECKING:
    from harness.generation.text_model import TextModel

_log = logging.getLogger(__name__)


def place_of(error: BaseException) -> str:
    """Return an error's class and the line that raised it, without its message.

    The message can hold a text of a request, and logs must not.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


class Decoder:
    """Decodes batches and delivers their predictions.

    Args:
        model: the model.
        metrics: counts batches, texts and tokens.

    Attributes:
        rate: the rate of the latest batches.
    """

    def __init__(self, model: TextModel, metrics: Metrics) -> None:
        self.rate = Rate()
        self._model = model
        self._metrics = metrics

    def decode(self, batch: Sequence[Item]) -> None:
        """Predict a batch; halve it as often as memory runs out."""
        out_of_memory = False
        start = clock.seconds()
        try:
            group = batch[0].group
            sources = [item.source for item in batch]
            texts = self._model.predict(sources, group.settings, group.adapter)
            self._deliver(batch, texts, clock.seconds() - start)
        except Exception as error:  # One batch must not end the server.
            out_of_memory = is_out_of_memory(error)
            _log.warning("A batch of %d failed: %s", len(batch), place_of(error))
        else:
            return
        # Outside of the handler, whose error holds the tensors of the batch.
        if out_of_memory and len(batch) > 1:
            self._metrics.batches.labels("split").inc()
            _free_memory()
            middle = len(batch) // 2
            self.decode(batch[:middle])
            self.decode(batch[middle:])
            return
        self._metrics.batches.labels("error").inc()
        message = "The model failed on the texts of this batch."
        if out_of_memory:
            _free_memory()
            message = "Memory runs out with this text alone; use fewer beams or a shorter text."
        for item in batch:
            if not item.prediction.done():
                item.prediction.set_exception(RefusalError(500, "model_failed", message))

    def _deliver(self, batch: Sequence[Item], texts: Sequence[str], seconds: float) -> None:
        self.rate.record(sum(item.tokens for item in batch), seconds)
        self._metrics.batches.labels("ok").inc()
        self._metrics.batch_texts.observe(len(batch))
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.source_tokens.inc(sum(len(item.source) for item in batch))
        for item, text in zip(batch, texts, strict=True):
            item.prediction.set_result(text)


def _free_memory() -> None:
    """Return the device's unused memory, so that the next batch finds it in one piece."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
