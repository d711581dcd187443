"""Progress of reading and tokenizing.

A task reads its files without knowing who shows how far it is, so the observer is set around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_observer: ContextVar[Callable[[int], None] | None] = ContextVar("progress", default=None)


@contextmanager
def shown_by(observer: Callable[[int], None]) -> Iterator[None]:
    """Call an observer with the number of rows done so far, for all work within the context."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def rows_done(count: int) -> None:
    """Report the number of rows that the current work has done."""
    if (observer := _observer.get()) is not None:
        observer(count)
