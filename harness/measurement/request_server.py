"""A fresh process that answers requests over a pipe, one at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

from harness.api.file_plugins import add_file
from harness.api.plugin_files import PluginFile
from harness.api.plugins import installed
from harness.errors import HarnessError, OutOfMemoryError, first_line, is_out_of_memory
from harness.interrupts import ignore_sigint_in_children

PRELOADED = (
    "harness.backbones.bart",
    "harness.backbones.t5",
    "harness.evaluation.decoding",
    "harness.measurement.breakdown",
    "harness.training.build",
    "transformers.models.bart.modeling_bart",
)
"""Modules that a service needs and that take seconds to import; none of them uses a device."""
_EXIT_SECONDS = 10
"""Time that a process has to end by itself once its pipe is closed."""


class ProcessEndedError(Exception):
    """The process of a request server ended before it answered.

    Attributes:
        code: its exit code, as ``multiprocessing.Process.exitcode`` gives it: -9 if it was killed.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process ended with code {code}")
        self.code = code


class Service:
    """Base class of the services of a request server: each public method is a request.

    The server creates the service in its process, without arguments. Arguments and results are
    pickled.
    """

    def memory_reached(self, error: Exception) -> int | None:
        """Return the peak bytes of this process when memory ran out; None if unknown."""
        return None


class RequestServer:
    """A fresh process that runs a service; its requests are calls of the service's methods.

    The process ignores Ctrl-C, which a terminal sends to children as well. The parent process ends
    it.

    Args:
        service: the class of the service.
        forked: fork the process from a server that has imported the modules, which is several
            seconds quicker from the second process on. It shares the server's pages, so its
            resident memory cannot be measured.
    """

    def __init__(self, service: type[Service], forked: bool = False) -> None:
        # Never a fork of this process: it would share pages and inherit thread state.
        context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
        if forked:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([*PRELOADED])
        self._pipe, child = context.Pipe()
        arguments = (child, service, installed().files)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with ignore_sigint_in_children():
            self._process.start()
        child.close()

    def request(self, method: str, *arguments: object, timeout: float | None = None) -> Any:
        """Call a method of the service in its process and return the result.

        Args:
            method: the name of the method.
            arguments: the positional arguments of the method.
            timeout: seconds to wait for the result; None waits without limit.

        Raises:
            HarnessError: raised by the method.
            OutOfMemoryError: the method ran out of memory; ``reached`` is set where it is known.
            RuntimeError: the method raised any other exception; the text names it.
            ProcessEndedError: the process ended before it answered.
            TimeoutError: there was no result within ``timeout``. The process is still busy and must
                be killed.
        """
        self.send(method, *arguments)
        return self.receive(timeout)

    def send(self, method: str, *arguments: object) -> None:
        """Start a request whose result ``receive`` returns; see ``request``."""
        try:
            self._pipe.send((method, arguments))
        except ConnectionError as error:
            raise self._ended() from error

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the result of the last request; see ``request``."""
        try:
            if not self._pipe.poll(timeout):
                raise TimeoutError(f"no answer within {timeout:g} seconds")
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _ended(self) -> ProcessEndedError:
        self._process.join(_EXIT_SECONDS)
        return ProcessEndedError(self._process.exitcode)

    def kill(self) -> None:
        """End the process at once, from any thread; a waiting ``request`` raises an error."""
        self._process.kill()

    def close(self) -> None:
        """End the process after its current request; kill it if that takes too long."""
        self._pipe.close()
        self._process.join(_EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(
    pipe: Connection, service_class: type[Service], plugin_files: Sequence[PluginFile]
) -> None:
    """Register the plugins that are single files, and answer requests until the pipe is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # A fork server may not block it.
    for file in plugin_files:
        add_file(installed(), file)
    service = service_class()
    with contextlib.suppress(EOFError, ConnectionError):  # The parent closed the pipe or died.
        while True:
            method, arguments = pipe.recv()
            answer: Any
            try:
                answer = getattr(service, method)(*arguments)
            except Exception as error:
                answer = _portable(error, service)
            pipe.send(answer)


def _portable(error: Exception, service: Service) -> Exception:
    """Convert an error to one that can be pickled, of a class that the parent distinguishes."""
    if isinstance(error, HarnessError):
        return HarnessError(error.message, error.hint)
    if is_out_of_memory(error):
        portable = OutOfMemoryError(first_line(error))
        portable.reached = service.memory_reached(error)
        return portable
    return RuntimeError(f"{type(error).__name__}: {error}")
