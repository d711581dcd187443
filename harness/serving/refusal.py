"""Refusals: answers to requests that get no prediction."""

from __future__ import annotations

import math


class RefusalError(Exception):
    """The answer to a request that gets no prediction; its message holds no text of the request.

    Args:
        status: status code of the answer.
        kind: the reason as one word for programs, e.g. ``queue_full``.
        message: the reason in a sentence, and what to do about it.
        retry_after: seconds after which the request may succeed; None if it never will.
    """

    def __init__(
        self, status: int, kind: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The body of the answer."""
        return {"error": {"type": self.kind, "message": self.message}}
