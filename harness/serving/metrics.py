"""Metrics of the server, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one server; no label holds a text of a request.

    Args:
        queue_length: returns the number of waiting texts.
    """

    def __init__(self, queue_length: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "harness_requests",
            "Answers by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "harness_request_seconds",
            "Time from the first byte of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        queue = Gauge("harness_queue_texts", "Texts that wait.", registry=registry)
        queue.set_function(queue_length)
        self.queue_seconds = Histogram(
            "harness_queue_seconds",
            "Time that a text waits before it is decoded.",
            buckets=(0.001, 0.005, *_SECONDS),
            registry=registry,
        )
        self.batches = Counter(
            "harness_batches",
            "Batches by outcome: ok, error or, where memory ran out, split.",
            ["outcome"],
            registry=registry,
        )
        self.batch_texts = Histogram(
            "harness_batch_texts", "Texts of a batch.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "harness_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=registry
        )
        self.dropped_texts = Counter(
            "harness_dropped_texts",
            "Texts that left the queue undecoded: their client left or their time was up.",
            registry=registry,
        )
        self.source_tokens = Counter(
            "harness_source_tokens", "Tokens of decoded sources.", registry=registry
        )
        self.prediction_tokens = Counter(
            "harness_prediction_tokens",
            "Tokens of predictions, as the tokenizer counts their texts.",
            registry=registry,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
