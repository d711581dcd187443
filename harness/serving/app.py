"""The web application of a service."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from harness import __version__
from harness.serving.completions import completion_routes
from harness.serving.middleware import LimitBody, Observe, RequireKey, answer
from harness.serving.refusal import RefusalError
from harness.serving.routes import routes
from harness.serving.service import Service

_ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
"""Path -> (file, media type) of the page on which the model can be tried."""

_PAGE_HEADERS = {
    # The page loads nothing from elsewhere and sends nothing elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_OPEN_PATHS = frozenset({*_ASSETS, "/health", "/openapi.json"})
"""Paths that need no key: a browser cannot send one with a page, nor a load balancer its check."""


def create_app(service: Service, key: str | None = None) -> FastAPI:
    """Return the application.

    Args:
        service: answers the requests; it must have been entered before the first one.
        key: the API key that requests must have; None if they need none.
    """
    bearer = HTTPBearer(auto_error=False, description="The server's API key.")
    app = FastAPI(
        title="harness",
        version=__version__,
        summary=f"Predictions of {service.usage.name}",
        # Their pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    # Documents the key; ``RequireKey`` checks it before the body is read.
    dependencies = [Depends(bearer)] if key is not None else []
    app.include_router(routes(service), dependencies=dependencies)
    app.include_router(completion_routes(service), dependencies=dependencies)
    for path, (name, media_type) in _ASSETS.items():
        app.get(path, include_in_schema=False)(_asset(name, media_type))
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    # The last one that is added is the first that a request meets.
    app.add_middleware(LimitBody, limits=service.limits)
    if key is not None:
        app.add_middleware(RequireKey, key=key, open_paths=_OPEN_PATHS)
    paths = frozenset({*app.openapi()["paths"], *_OPEN_PATHS})
    app.add_middleware(Observe, metrics=service.metrics, paths=paths)
    return app


def _asset(name: str, media_type: str) -> Any:
    content = resources.files("harness.serving").joinpath("page", name).read_bytes()

    async def asset() -> Response:
        return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

    return asset


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return answer(error)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = answer(RefusalError(error.status_code, "http_error", str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def _invalid(_: Request, error: Exception) -> Response:
    """Answer a request that does not fit its schema, without its values, which hold its texts."""
    assert isinstance(error, RequestValidationError)
    reasons = []
    for found in error.errors():
        if found["type"] == "json_invalid":
            reasons.append(f"the body is no JSON, from character {found['loc'][-1]} on")
            continue
        place = ".".join(str(part) for part in found["loc"] if part != "body")
        reasons.append(f"{place or 'body'}: {found['msg']}")
    return answer(RefusalError(422, "invalid", "; ".join(dict.fromkeys(reasons))))
