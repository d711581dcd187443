"""The service: requests are checked, tokenized, decoded and answered, or refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from harness import clock
from harness.serving.batch_queue import Group, Item
from harness.serving.encoder import Encoder
from harness.serving.limits import Limits
from harness.serving.refusal import RefusalError
from harness.serving.requested_search import resolve_group
from harness.serving.worker import Worker

if TYPE_CHECKING:
    from harness.generation.text_model import TextModel


class Prediction(NamedTuple):
    """The prediction of one text.

    Attributes:
        text: the prediction.
        source_tokens: tokens of the source, with the prefix and special tokens.
        prediction_tokens: tokens of the prediction, as the tokenizer counts its text.
        truncated: whether the source was longer than the model's limit.
    """

    text: str
    source_tokens: int
    prediction_tokens: int
    truncated: bool


class Service:
    """Predicts the texts of requests in shared batches; a context manager.

    At its end, all texts that were accepted are decoded, and the model is closed. After an error,
    such as Ctrl-C, it ends at once.

    Args:
        model: the model.
        limits: sizes, the queue's length and the time of a request.

    Attributes:
        draining: whether new requests are refused, since the server ends.
        open_requests: accepted requests without an answer yet.
    """

    def __init__(self, model: TextModel, limits: Limits) -> None:
        defaults = model.usage.settings
        # The model's own settings are allowed, whatever the limits are.
        self.limits = limits.model_copy(
            update={
                "max_beams": max(limits.max_beams, defaults.beams),
                "max_new_tokens": max(limits.max_new_tokens, defaults.max_new_tokens),
                # A request that the queue can never hold is too large rather than too early.
                "max_texts": min(limits.max_texts, limits.max_queue),
            }
        )
        self.usage = model.usage
        self.adapters = tuple(model.adapters)
        self.draining = False
        self.open_requests = 0
        self._model = model
        self._worker = Worker(model, self.limits)
        self._encoder = Encoder(model)
        self._encoding = ThreadPoolExecutor(1, "encoding")
        self.metrics = self._worker.metrics

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.draining = True
        if kind is not None:
            self._worker.abandon()
            return
        self._worker.stop()
        self._encoding.shutdown()
        self._model.close()

    @property
    def status(self) -> Literal["ready", "draining", "failed"]:
        """The state: failed means that the thread which decodes has ended."""
        if self.draining:
            return "draining"
        return "ready" if self._worker.alive else "failed"

    @property
    def idle(self) -> bool:
        """True if every accepted request is answered."""
        return self.open_requests == 0 and not self._worker.busy

    def group(self, adapter: str | None, options: Mapping[str, Any]) -> Group:
        """Return the adapter and the complete settings of a request; see ``resolve_group``."""
        return resolve_group(self.usage.settings, self.limits, self.adapters, adapter, options)

    async def predict(
        self,
        texts: Sequence[str],
        group: Group,
        *,
        truncate: bool,
        client_left: Callable[[], Awaitable[None]],
    ) -> list[Prediction]:
        """Return the prediction of each text.

        Args:
            texts: the texts of one request.
            group: adapter and settings of the search.
            truncate: whether texts longer than the model's limit are truncated, or refused.
            client_left: returns when the client has closed its connection; texts that still wait
                are then dropped.

        Raises:
            RefusalError: the request cannot be answered.
        """
        self._check(texts)
        with self._open_request():
            try:
                async with asyncio.timeout(self.limits.timeout):
                    return await self._predict(texts, group, truncate, client_left)
            except TimeoutError:
                message = f"The request took longer than {self.limits.timeout:g} s."
                wait = self._worker.seconds_to_wait() or 1.0
                raise RefusalError(503, "timeout", message, wait) from None

    def _check(self, texts: Sequence[str]) -> None:
        """Refuse texts that are too many or too long, or while there is no room for more."""
        if self.draining:
            raise RefusalError(503, "draining", "The server ends; try again later.", 5.0)
        _check_size(texts, self.limits)
        self._worker.check_room(len(texts))

    @contextlib.contextmanager
    def _open_request(self) -> Iterator[None]:
        self.open_requests += 1
        try:
            yield
        finally:
            self.open_requests -= 1

    async def _predict(
        self,
        texts: Sequence[str],
        group: Group,
        truncate: bool,
        client_left: Callable[[], Awaitable[None]],
    ) -> list[Prediction]:
        loop = asyncio.get_running_loop()
        # A blank text is not given to the model: its prediction is empty.
        filled = [index for index, text in enumerate(texts) if text.strip()]
        encoded = await loop.run_in_executor(
            self._encoding, self._encoder.encode, [texts[i] for i in filled]
        )
        for index, row in zip(filled, encoded, strict=True):
            if row.truncated and not truncate:
                message = (
                    f"Text {index + 1} has more than {self.usage.max_source_length} tokens. "
                    "Shorten it, or send truncate: true."
                )
                raise RefusalError(413, "too_long", message)
        now = clock.seconds()
        items = [Item(row.ids, group, now) for row in encoded]
        self._worker.submit(items)
        try:
            found = await _predictions(items, client_left)
        finally:
            self._worker.drop(items)
        counts = await loop.run_in_executor(self._encoding, self._encoder.count, found)
        self.metrics.prediction_tokens.inc(sum(counts))
        predictions = [Prediction("", 0, 0, truncated=False)] * len(texts)
        for index, row, text, count in zip(filled, encoded, found, counts, strict=True):
            predictions[index] = Prediction(text, len(row.ids), count, row.truncated)
        return predictions


async def _predictions(
    items: Sequence[Item], client_left: Callable[[], Awaitable[None]]
) -> list[str]:
    """Wait for all predictions, or until one fails or the client leaves."""
    answers = asyncio.gather(*(asyncio.wrap_future(item.prediction) for item in items))
    left = asyncio.ensure_future(client_left())
    try:
        await asyncio.wait((answers, left), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise RefusalError(499, "client_left", "The client closed the connection.")
        return answers.result()
    finally:
        left.cancel()
        if not answers.done():
            answers.cancel()
        # Awaited, so that neither is reported as an error that nobody looked at.
        await asyncio.gather(answers, left, return_exceptions=True)


def _check_size(texts: Sequence[str], limits: Limits) -> None:
    if not texts:
        raise RefusalError(422, "no_text", "Send at least one text.")
    if len(texts) > limits.max_texts:
        message = f"A request has at most {limits.max_texts} texts on this server."
        raise RefusalError(413, "too_many_texts", message)
    characters = sum(map(len, texts))
    if characters > limits.max_characters:
        message = (
            f"The texts have {characters:,} characters; a request has at most "
            f"{limits.max_characters:,} on this server."
        )
        raise RefusalError(413, "too_long", message)
