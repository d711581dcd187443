"""Control of Python's garbage collector, whose search for cycles is slow on many objects."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Exclude the objects that the block creates from the search for cycles, now and later.

    Thousands of reports have no cycles, and searching them takes longer than reading them. They
    are still freed when nothing refers to them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
