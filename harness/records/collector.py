"""Python's search for cycles, which costs much where millions of objects hold none."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Spare what is made inside the search for cycles, then and later.

    Thousands of reports hold none, and to search them takes longer than to make them. They are
    freed when nothing refers to them, as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
