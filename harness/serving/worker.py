"""The thread that decodes: it takes batches from the queue and delivers predictions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import clock
from harness.serving.batch_queue import BatchQueue, Item
from harness.serving.decoder import Decoder
from harness.serving.limits import Limits
from harness.serving.metrics import Metrics
from harness.serving.refusal import RefusalError

if TYPE_CHECKING:
    from harness.generation.text_model import TextModel


class Worker:
    """Decodes batch after batch in a thread of its own.

    Args:
        model: the model; only this thread calls ``predict``.
        limits: sizes of batches and of the queue.
    """

    def __init__(self, model: TextModel, limits: Limits) -> None:
        self._limits = limits
        self._queue = BatchQueue(limits.batch_tokens, limits.max_wait_ms / 1000)
        self._changed = threading.Condition()
        self._stopping = False
        self._decoding = 0
        self.metrics = Metrics(lambda: len(self._queue))
        self._decoder = Decoder(model, self.metrics)
        self._thread = threading.Thread(target=self._work, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Decode all texts that wait, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def abandon(self) -> None:
        """End the thread after its present batch; waiting texts are never decoded."""
        with self._changed:
            self._stopping = True
            self._queue.clear()
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """True while the thread works."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """True while a text waits or is decoded."""
        with self._changed:
            return bool(self._decoding or len(self._queue))

    def seconds_to_wait(self) -> float | None:
        """Return the estimated time until all present texts are decoded; None if unknown."""
        with self._changed:
            return self._decoder.rate.seconds_for(self._queue.tokens + self._decoding)

    def check_room(self, count: int) -> None:
        """Check that more texts can be decoded in time.

        Args:
            count: number of texts.

        Raises:
            RefusalError: the queue is full, or so long that a request's time would be up.
        """
        wait = self.seconds_to_wait()
        if len(self._queue) + count > self._limits.max_queue:
            raise RefusalError(
                429, "queue_full", "Too many texts wait; try again later.", wait or 1.0
            )
        if wait is not None and wait > self._limits.timeout:
            message = "The texts that wait take longer than a request may; try again later."
            raise RefusalError(429, "queue_full", message, wait - self._limits.timeout)

    def submit(self, items: Sequence[Item]) -> None:
        """Put texts into the queue.

        Raises:
            RefusalError: see ``check_room``.
        """
        with self._changed:
            self.check_room(len(items))
            self._queue.add(items)
            self._changed.notify()

    def drop(self, items: Sequence[Item]) -> int:
        """Take texts out of the queue, and return the number of those that are being decoded."""
        with self._changed:
            waiting = self._queue.remove(items)
        for item in waiting:
            item.prediction.cancel()
        self.metrics.dropped_texts.inc(len(waiting))
        return sum(not item.prediction.done() for item in items)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._decoder.decode(batch)
            with self._changed:
                self._decoding = 0

    def _next_batch(self) -> list[Item] | None:
        """Wait for a batch and return its texts; None if no batch will come."""
        with self._changed:
            while not (batch := self._queue.take(clock.seconds())):
                seconds = self._queue.due(clock.seconds())
                if seconds is None and self._stopping:
                    return None
                self._changed.wait(seconds)
            self._decoding = sum(item.tokens for item in batch)
        batch = [item for item in batch if item.prediction.set_running_or_notify_cancel()]
        now = clock.seconds()
        for item in batch:
            self.metrics.queue_seconds.observe(now - item.arrived)
        return batch
