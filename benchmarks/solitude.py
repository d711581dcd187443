"""Runs a function in a new process, forked from a server that has imported all modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from visible_device import VARIABLE, first_visible

os.environ[VARIABLE] = first_visible(os.environ)
# The fork server does not inherit the path of this folder's modules.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["contenders"])


class NoResultError(Exception):
    """Raised when the process fails, dies or takes too long; the message says which."""


def alone(work: Callable[..., Any], *arguments: object, limit: float | None = None) -> Any:
    """Call a function in a process of its own, and return its result.

    Args:
        work: a function at the top level of a module.
        arguments: its arguments.
        limit: seconds after which the process is killed.

    Raises:
        NoResultError: the function raised, or the process died or was killed.
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
