"""Errors that are shown to the user."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class HarnessError(Exception):
    """A mistake that the user can correct; shown without a traceback.

    Args:
        message: the problem and its place.
        hint: the command or edit that corrects it.

    Attributes:
        exit_code: exit status of the command.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BusyError(HarnessError):
    """Exit status if another process has locked the run; EX_TEMPFAIL in sysexits.h."""

    exit_code = 75


class NotMeasurableError(Exception):
    """A number cannot be measured here; its text is the reason in the report."""


class OutOfMemoryError(Exception):
    """A process ran out of memory, or was killed for it.

    Attributes:
        reached: peak bytes of the process (CPU) or of its tensors (CUDA) before that; None if
            unknown, or if it was another process of a distributed training.
    """

    reached: int | None = None


_NO_MEMORY = re.compile(
    r"out of memory|can(?:'t|not) allocate memory|_ALLOC(?:ATION)?_FAILED", re.I
)
"""Error texts of torch's CPU allocator, CUDA, Triton and NCCL, and status names of cuBLAS, cuDNN
and similar libraries. On a device, torch's allocator raises its own error; contexts, handles,
kernels and buffers of libraries are allocated outside it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that the device or the host is out of memory."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # All errors of torch, including its allocator's, are of this type.
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    text = error.message if isinstance(error, HarnessError) else str(error)
    return text.partition("\n")[0] or type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests similar names and lists all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    suggestion = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return f"{suggestion}Known: {', '.join(names) or 'none'}."
