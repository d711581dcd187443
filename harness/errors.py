"""Errors that speak to the user."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class HarnessError(Exception):
    """A mistake that the user can mend; shown without a traceback.

    Args:
        message: what is wrong, and where.
        hint: the command or edit that mends it.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BusyError(HarnessError):
    """Another process is at work on it; sysexits.h calls this a temporary failure."""

    exit_code = 75


class NotMeasurableError(Exception):
    """A number that cannot be measured here; its text is the reason that a report gives."""


class OutOfMemoryError(Exception):
    """A process ran out of memory, or was killed for it.

    Attributes:
        reached: the most bytes that it held (CPU) or that its tensors took (CUDA) before that; None
            where it could not say, or was another process of a distributed training.
    """

    reached: int | None = None


_NO_MEMORY = re.compile(
    r"out of memory|can(?:'t|not) allocate memory|_ALLOC(?:ATION)?_FAILED", re.I
)
"""Texts of errors of torch's CPU allocator, CUDA, Triton and NCCL, and the status of cuBLAS, cuDNN
and their like. On a device most memory is taken by torch's allocator, which raises an error of its
own, but not contexts, handles, kernels and buffers of libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the device or on the host."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch's own errors, that of its allocator included, are all of them.
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    text = error.message if isinstance(error, HarnessError) else str(error)
    return text.partition("\n")[0] or type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests near names and lists all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    suggestion = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return f"{suggestion}Known: {', '.join(names) or 'none'}."
