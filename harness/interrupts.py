"""Start child processes that ignore Ctrl-C, and end those whose parent died."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker

MAIN_IS_SILENT = 76
"""Exit status of a worker that ends because the main process of its group does not answer."""
_PR_SET_PDEATHSIG = 1
"""See prctl(2)."""


@contextlib.contextmanager
def ignore_sigint_in_children() -> Iterator[None]:
    """Block SIGINT in the processes that multiprocessing starts within the context.

    A terminal sends Ctrl-C to all of them. Each would end wherever it is, even in an import, with a
    traceback. The process that started them receives the signal too, and ends them.
    """
    # The tracker starts with the first child, and would unblock the signal before the child exists.
    resource_tracker.ensure_running()
    # A child inherits the blocked signals of the thread that starts it, over fork and exec.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
