"""Ctrl-C reaches every process that a terminal shows; only the first is to heed it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def ignore_sigint_in_children() -> Iterator[None]:
    """Within the context: processes that multiprocessing starts never hear of Ctrl-C.

    An interrupt would end them wherever they are, even in an import, with a traceback each. The
    process that started them does hear it, and decides.
    """
    # Its start, on the first occasion, would unblock the signal before the child is there.
    resource_tracker.ensure_running()
    # A blocked signal stays blocked in what a thread starts, over fork and exec.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
