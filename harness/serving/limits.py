"""Limits of the server: sizes of requests and batches, the queue and the time."""

from __future__ import annotations

from pydantic import Field

from harness.api.options import Options


class Limits(Options):
    """Limits that keep the server responsive."""

    max_wait_ms: float = Field(10.0, ge=0)
    """Longest time, in milliseconds, that a text waits for others to share its batch while the
    model is idle."""
    batch_tokens: int = Field(1 << 14, ge=1)
    """Token budget of a batch: each text counts its source and, for each beam, the longest
    prediction."""
    max_texts: int = Field(64, ge=1)
    """Most texts of a request."""
    max_characters: int = Field(100_000, ge=1)
    """Most characters of a request's texts together."""
    max_queue: int = Field(512, ge=1)
    """Most texts that wait; further requests are refused."""
    timeout: float = Field(60.0, gt=0)
    """Longest time of a request in seconds."""
    max_beams: int = Field(16, ge=1)
    """Most beams that a request may ask for."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest prediction, in tokens, that a request may ask for."""

    @property
    def max_body_bytes(self) -> int:
        """The largest body: JSON may write a character in 12 bytes, as a surrogate pair."""
        return 12 * self.max_characters + (1 << 16)
