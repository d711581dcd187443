"""Prints how long measured processes take to start, and to answer each request."""

from __future__ import annotations

import time
from typing import Any

from harness.measurement.recipe_process import RecipeProcess

LEAST = 0.5
"""Seconds of the shortest request that is printed."""


def print_requests() -> None:
    """Let all measured processes print the seconds of their requests."""
    start, send, receive = RecipeProcess.__init__, RecipeProcess._send, RecipeProcess._receive
    sent: dict[int, tuple[str, float]] = {}

    def printed_start(self: RecipeProcess, recipe: str, *arguments: Any) -> None:
        began = time.monotonic()
        start(self, recipe, *arguments)
        show(recipe, "start", began)

    def timed_send(self: RecipeProcess, request: str, *arguments: object) -> None:
        sent[id(self)] = request, time.monotonic()
        send(self, request, *arguments)

    def printed_receive(self: RecipeProcess) -> Any:
        answer = receive(self)
        show(self.recipe, *sent[id(self)])
        return answer

    RecipeProcess.__init__ = printed_start  # type: ignore[assignment, method-assign]
    RecipeProcess._send = timed_send  # type: ignore[method-assign]
    RecipeProcess._receive = printed_receive  # type: ignore[method-assign]


def show(recipe: str, request: str, began: float) -> None:
    """Print the seconds since the beginning of a request."""
    seconds = time.monotonic() - began
    if seconds >= LEAST:
        print(f"  {recipe} {request}: {seconds:.1f} s", flush=True)
