"""Work done in a process of its own, which starts with everything imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from visible_device import VARIABLE, first_visible

os.environ[VARIABLE] = first_visible(os.environ)
# The server of processes is not told where this module's neighbours are.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["contenders"])


class NoResultError(Exception):
    """The process failed, died, or took too long; says which."""


def alone(work: Callable[..., Any], *arguments: object, limit: float | None = None) -> Any:
    """Return what a function of a module returns in a process of its own.

    Args:
        work: the function.
        arguments: of it.
        limit: in seconds; then the process is killed.

    Raises:
        NoResultError: with the reason.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_answer, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(limit):
            raise NoResultError(f"not done after {limit:.0f} s")
        done, result = here.recv()
    except EOFError:
        process.join()
        raise NoResultError(f"its process ended with status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if not done:
        raise NoResultError(result)
    return result


def _answer(
    connection: Connection, work: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    try:
        connection.send((True, work(*arguments)))
    except Exception as error:  # The caller decides whether it can do without.
        connection.send((False, f"{type(error).__name__}: {error}".splitlines()[0]))
