"""Start child processes that ignore Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


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
