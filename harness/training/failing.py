"""Errors of a group of processes: which process an error comes from, and how the others end."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

import torch

from harness.errors import OutOfMemoryError, first_line, is_out_of_memory
from harness.interrupts import MAIN_IS_SILENT

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_ERROR, _PRESENT, _END = "harness/error", "harness/present/", "harness/end"
"""Keys of the store that the processes share."""
_MOMENT, _LONG = timedelta(seconds=5), timedelta(seconds=60)
"""Times to wait for the reason of an error, and for the end of the main process."""
_OF_EXCHANGE = re.compile(
    r"gloo|NCCL|connection (closed|reset|refused)|broken pipe|timed out", re.I
)
"""Error texts of exchanges in which another process no longer takes part."""


class LostProcessError(RuntimeError):
    """Another process ended without leaving a reason; the launcher knows which, and how."""


class TerminatedError(KeyboardInterrupt):
    """The launcher ended this process, because another one ended or the whole job was stopped."""


def terminate(signum: int, frame: FrameType | None) -> None:
    """Raise ``TerminatedError``; the handler of SIGTERM in the main process."""
    raise TerminatedError(
        "The launcher ended this process: another process ended, or the job was stopped."
    )


def leave(store: Store, rank: int, error: BaseException) -> None:
    """Leave a group because of an error, and wait for the end of the main process.

    Only an error of this process's own is left as the reason. An exchange also fails in the
    processes that wait for the one at fault.

    Raises:
        SystemExit: the main process does not end.
    """
    try:
        if not _is_of_exchange(error):
            kind = "memory" if is_out_of_memory(error) else "error"
            # Only the first one: the errors of the others follow from it.
            store.compare_set(_ERROR, "", json.dumps([rank, kind, first_line(error)]))
        store.set(f"{_PRESENT}{rank}", "")
        torch.distributed.destroy_process_group()
        store.wait([_END], _LONG)
    except RuntimeError as lost:
        # Another error means that the main process, or its launcher, has ended with the store.
        if "timeout" in str(lost).lower():
            raise SystemExit(MAIN_IS_SILENT) from None


def end_workers(store: Store) -> None:
    """Let the workers that wait in ``leave`` end."""
    store.set(_END, "")


def find_cause(store: Store, size: int, error: BaseException, timeout: timedelta) -> BaseException:
    """Return the error that an error of the main process follows from, or the same error.

    Args:
        store: the store that the processes share.
        size: number of processes.
        error: the error of the main process.
        timeout: the time that a process waits for the others in an exchange.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return error
    if threading.current_thread() is threading.main_thread():
        # The launcher ends this process because of the same failure; first comes the report.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(RuntimeError):
        store.wait([_ERROR], _MOMENT)
        rank, kind, text = json.loads(store.get(_ERROR))
        message = f"Process {rank}: {text}"
        return OutOfMemoryError(message) if kind == "memory" else RuntimeError(message)
    if not _is_of_exchange(error):
        return error
    if "timed out" not in str(error).lower():
        return LostProcessError("Another process ended without a reason; the launcher names it.")
    silent = [rank for rank in range(1, size) if not store.check([f"{_PRESENT}{rank}"])]
    who = f"Process{'es' * (len(silent) > 1)} {', '.join(map(str, silent)) or '?'}"
    return RuntimeError(f"{who} did not answer within {timeout.total_seconds():g} seconds.")


def _is_of_exchange(error: BaseException) -> bool:
    """Return whether an error says that another process no longer takes part, or Ctrl-C."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, RuntimeError) and _OF_EXCHANGE.search(str(error)) is not None
