"""A fresh process that works with the model of one recipe, on request."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from harness.errors import OutOfMemoryError
from harness.measurement.request_server import ProcessEndedError, RequestServer, Service


class RecipeProcess:
    """Base class of processes that work with the model of a recipe; a context manager.

    On CUDA the process is forked from a server that has imported the modules. What it measures on
    the device does not depend on that. On a CPU its resident memory does.

    Args:
        recipe: the recipe, which names the process in messages.
        device: the requested device.
        service: the class of the service in the process.

    Raises:
        HarnessError: CUDA was requested and is not available.
    """

    def __init__(self, recipe: str, device: str, service: type[Service]) -> None:
        from harness.training.resolved_run import choose_device

        self.recipe = recipe
        self._server = RequestServer(service, forked=choose_device(device).type == "cuda")

    def kill(self) -> None:
        """End the process at once, from any thread; a method that waits for it raises an error."""
        self._server.kill()

    def close(self) -> None:
        """End the process."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:  # The process may still be busy, and nobody reads its answer.
            self.kill()
        self.close()

    def _ask(self, request: str, *arguments: object) -> Any:
        """Make a request and return its result."""
        self._send(request, *arguments)
        return self._receive()

    def _send(self, request: str, *arguments: object) -> None:
        """Make a request whose result ``_receive`` returns."""
        try:
            self._server.send(request, *arguments)
        except ProcessEndedError as error:
            raise self._cause(error) from error

    def _receive(self) -> Any:
        try:
            return self._server.receive()
        except ProcessEndedError as error:
            raise self._cause(error) from error

    def _cause(self, error: ProcessEndedError) -> Exception:
        if error.code == -9:
            return OutOfMemoryError(f"The process of {self.recipe} was killed.")
        return RuntimeError(f"The process of {self.recipe} ended with code {error.code}.")
