"""Routes: predictions, names, state and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from harness.serving.schemas import (
    ErrorResponse,
    GenerateRequest,
    GenerateResponse,
    Health,
    ModelInfo,
    Output,
)
from harness.serving.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        401: "The API key is missing or wrong.",
        404: "There is no such adapter.",
        408: "The body arrived too slowly.",
        413: "The request is too large, or a text is longer than the model takes.",
        422: "The request cannot be read, or a setting is out of bounds.",
        429: "Too many texts wait; the header Retry-After says when to try again.",
        500: "The model failed on this batch.",
        503: "The server ends, or the time is up; see the header Retry-After.",
    }.items()
}


async def disconnected(request: Request) -> None:
    """Return when the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def routes(service: Service) -> APIRouter:
    """Return the routes of a service.

    Args:
        service: answers the requests.
    """
    router = APIRouter()
    usage = service.usage

    @router.post("/generate", responses=REFUSALS, tags=["predictions"])
    async def generate(body: GenerateRequest, request: Request) -> GenerateResponse:
        """Predict one text or several."""
        group = service.group(body.adapter, body.options)
        predictions = await service.predict(
            body.texts,
            group,
            truncate=body.truncate,
            client_left=lambda: disconnected(request),
        )
        outputs = [Output.model_validate(prediction._asdict()) for prediction in predictions]
        return GenerateResponse(model=usage.name, adapter=body.adapter, outputs=outputs)

    @router.get("/model", responses={401: REFUSALS[401]}, tags=["server"])
    async def model() -> ModelInfo:
        """Describe the model, its adapters, its search and the limits of the server."""
        return ModelInfo(
            name=usage.name,
            adapters=list(service.adapters),
            prefix=usage.prefix,
            max_source_length=usage.max_source_length,
            settings=usage.settings,
            limits=service.limits,
        )

    @router.get("/health", responses={503: {"model": Health}}, tags=["server"])
    async def health(response: Response) -> Health:
        """Tell whether the server takes requests: 200 if ready, else 503."""
        status = service.status
        response.status_code = 200 if status == "ready" else 503
        return Health(status=status)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401]},
        tags=["server"],
    )
    async def metrics() -> Response:
        """Return counters and histograms in the format of Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
