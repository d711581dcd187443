"""The HTTP server: a socket, signals and an end that answers all accepted requests."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from harness.errors import HarnessError
from harness.serving.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

_GRACE = 5
"""Seconds that open connections have at the end, after all accepted requests are answered."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; nobody can connect yet.

    Args:
        host: address or name.
        port: port; 0 is a free one.

    Raises:
        HarnessError: the address does not exist or is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise HarnessError(
            f"The server cannot use {host}:{port}: {error.strerror or error}.",
            "Choose another address: --port 0 takes a free port, --host 127.0.0.1 this machine.",
        ) from error
    return bound


class Server(uvicorn.Server):
    """A server that, at SIGTERM or SIGINT, refuses new requests and answers the accepted ones.

    A second signal ends it at once.

    Args:
        app: the application.
        service: its service.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        # Its access log holds queries, and its error log the messages of errors.
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self._service = service

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server ends; called ten times a second."""
        finished = self._service.draining and self._service.idle
        return await super().on_tick(counter) or finished

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, and end at the second."""
        if not self._service.draining:
            self._service.draining = True
            return
        self.should_exit = self.force_exit = True
        # Raised again by uvicorn once it has ended, so that the process shows how.
        self._captured_signals.append(signal.Signals(sig))


def log_to_stderr() -> None:
    """Write the log of requests, and warnings of the server, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("harness.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
