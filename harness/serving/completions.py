"""Routes of the OpenAI API that an encoder-decoder with beam search can answer."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request

from harness.errors import did_you_mean
from harness.serving.refusal import RefusalError
from harness.serving.routes import REFUSALS, disconnected
from harness.serving.schemas import (
    Choice,
    Completion,
    CompletionRequest,
    ErrorResponse,
    ModelEntry,
    ModelList,
    Tokens,
)
from harness.serving.service import Service

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "temperature": (0,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "stream": (False,),
    "echo": (False,),
    "logprobs": (),
    "logit_bias": ({},),
    "stop": ([],),
    "suffix": ("",),
}
"""Option -> values that ask for nothing which greedy and beam search do not do."""

_BAD_REQUEST: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "An option asks for sampling or streaming."}
}


def completion_routes(service: Service) -> APIRouter:
    """Return the routes under ``/v1``.

    Args:
        service: answers the requests.
    """
    router = APIRouter(prefix="/v1", tags=["OpenAI API"])
    base = service.usage.name
    names = (base, *service.adapters)
    started = int(time.time())

    @router.get("/models", responses={401: REFUSALS[401]})
    async def models() -> ModelList:
        """List the names of the model and its adapters."""
        return ModelList(data=[ModelEntry(id=name, created=started) for name in names])

    @router.post("/completions", responses=REFUSALS | _BAD_REQUEST)
    async def completions(body: CompletionRequest, request: Request) -> Completion:
        """Predict one text or several, with a request of the OpenAI API."""
        _check_neutral(body)
        if body.model is not None and body.model not in names:
            message = f"There is no such model. {did_you_mean(body.model, names)}"
            raise RefusalError(404, "unknown_model", message)
        adapter = None if body.model in (None, base) else body.model
        options = {} if body.max_tokens is None else {"max_new_tokens": body.max_tokens}
        predictions = await service.predict(
            body.texts,
            service.group(adapter, options),
            truncate=False,
            client_left=lambda: disconnected(request),
        )
        prompt_tokens = sum(prediction.source_tokens for prediction in predictions)
        completion_tokens = sum(prediction.prediction_tokens for prediction in predictions)
        return Completion(
            id=f"cmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=adapter or base,
            choices=[Choice(index=i, text=found.text) for i, found in enumerate(predictions)],
            usage=Tokens(
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                total_tokens=prompt_tokens + completion_tokens,
            ),
        )

    return router


def _check_neutral(body: CompletionRequest) -> None:
    """Check that no option asks for sampling, streaming or log-probabilities."""
    for name, neutral in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            allowed = f" or set it to {neutral[0]!r}" if neutral else ""
            message = (
                f"{name} asks for what greedy and beam search do not do. Leave it out{allowed}; "
                "POST /generate has the options of the search."
            )
            raise RefusalError(400, "unsupported", message)
