"""Child processes that ignore Ctrl-C and end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import active_children, get_context, resource_tracker
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

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


@contextlib.contextmanager
def process_pool(
    processes: int, begin: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of new processes, which are killed if the context ends by an exception.

    Submit calls within ``ignore_sigint_in_children``: a call may start a process. The processes are
    not forked, since a fork would copy locks that threads of this process hold.

    Args:
        processes: number of processes.
        begin: is called once in each process, before its first call.
        arguments: arguments of ``begin``.
    """
    from concurrent.futures import ProcessPoolExecutor

    others = set(active_children())
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=begin, initargs=arguments
    )
    try:
        yield pool
    except BaseException:
        # Ctrl-C does not reach the processes, and this one would wait for their calls.
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
