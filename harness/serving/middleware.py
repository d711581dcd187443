"""Middleware: the API key, the size of bodies, metrics and a log without texts."""

from __future__ import annotations

import asyncio
import hmac
import logging

from fastapi import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness import clock
from harness.serving.decoder import place_of
from harness.serving.limits import Limits
from harness.serving.metrics import Metrics
from harness.serving.refusal import RefusalError

_log = logging.getLogger("harness.serving.access")


_POLLED = ("/health", "/metrics")


def answer(refusal: RefusalError) -> JSONResponse:
    """Return the answer of a refused request."""
    return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)


class RequireKey:
    """Refuses requests without the API key, before their body is read.

    Args:
        app: the application.
        key: the key; a request has it as ``Authorization: Bearer KEY``.
        open_paths: paths that need no key.
    """

    def __init__(self, app: ASGIApp, key: str, open_paths: frozenset[str]) -> None:
        self._app = app
        self._expected = f"bearer {key}".encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            headers = dict(scope["headers"])
            scheme, space, key = headers.get(b"authorization", b"").partition(b" ")
            given = scheme.lower() + space + key.strip()
            # Takes equal time wherever they differ.
            if not hmac.compare_digest(given, self._expected):
                message = "Send the API key: Authorization: Bearer KEY"
                refusal = answer(RefusalError(401, "bad_key", message))
                refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class LimitBody:
    """Refuses bodies that are too large or arrive too slowly.

    Args:
        app: the application.
        limits: the largest body, and the time that it may take.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.max_body_bytes:
            await self._too_large()(scope, receive, send)
            return
        deadline = clock.seconds() + self._limits.timeout
        received = 0
        complete = False

        async def limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - clock.seconds())
            except TimeoutError:
                raise HTTPException(408, "The body of the request did not arrive.") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._limits.max_body_bytes:
                raise HTTPException(413, self._message())
            return message

        await self._app(scope, limited, send)

    def _message(self) -> str:
        return f"The body has more than {self._limits.max_body_bytes:,} bytes."

    def _too_large(self) -> JSONResponse:
        return answer(RefusalError(413, "too_long", self._message()))


class Observe:
    """Counts and logs requests by route and status, and answers 500 to unexpected errors.

    Neither holds a text: paths that are no route, queries, bodies and messages of errors are left
    out.

    Args:
        app: the application.
        metrics: counts requests.
        paths: the paths of all routes.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = clock.seconds()
        status: int | None = None

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:  # Its message would be logged by the server.
            _log.error("An unexpected error: %s", place_of(error))
            if status is None:
                refusal = RefusalError(500, "error", "The server failed; its log says where.")
                await answer(refusal)(scope, receive, observed)
        finally:
            route = scope["path"] if scope["path"] in self._paths else "(no route)"
            seconds = clock.seconds() - start
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            # Asked for every few seconds by programs.
            level = logging.DEBUG if route in _POLLED else logging.INFO
            _log.log(level, "%s %s %s %.0f ms", scope["method"], route, status, 1000 * seconds)
