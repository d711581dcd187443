"""Requests and answers, which the OpenAPI page documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness.api.options import Options
from harness.serving.limits import Limits
from harness.spec.decoding import DecodingSettings, EarlyStopping

EXAMPLE = "There is a nodule in the left lung. The liver is normal."


def _check_unicode(text: str) -> str:
    """Refuse half a surrogate pair, which JSON can write but no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]


def _option(name: str) -> Any:
    """Return the field of an option of the search; its bounds are checked by the search itself."""
    return Field(None, description=DecodingSettings.model_fields[name].description)


class GenerateRequest(Options):
    """Texts to predict, and how. Options that are left out are the model's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": EXAMPLE},
                {"inputs": [EXAMPLE, "No fracture."], "beams": 4, "max_new_tokens": 32},
            ]
        }
    )

    inputs: Text | list[Text]
    """One text or several."""
    adapter: str | None = None
    """Name of the adapter to use; without it the model is used as it is."""
    truncate: bool = False
    """true truncates a text longer than the model's limit; false answers 413."""
    beams: int | None = _option("beams")
    max_new_tokens: int | None = _option("max_new_tokens")
    no_repeat_ngram: int | None = _option("no_repeat_ngram")
    length_penalty: float | None = _option("length_penalty")
    min_new_tokens: int | None = _option("min_new_tokens")
    repetition_penalty: float | None = _option("repetition_penalty")
    early_stopping: EarlyStopping | None = _option("early_stopping")

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs

    @property
    def options(self) -> dict[str, Any]:
        """The options of the search that the request sets."""
        names = DecodingSettings.model_fields.keys() & type(self).model_fields.keys()
        return self.model_dump(include=set(names), exclude_none=True)


class Output(BaseModel):
    """The prediction of one text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    """The prediction; empty if the text is blank."""
    source_tokens: int
    """Tokens of the text, with the model's prefix and special tokens."""
    prediction_tokens: int
    """Tokens of the prediction, as the tokenizer counts its text."""
    truncated: bool
    """true if the text was longer than the model's limit, so that its end was ignored."""


class GenerateResponse(BaseModel):
    """Predictions in the order of the texts."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    """Name of the model."""
    adapter: str | None
    """Name of the adapter that was used."""
    outputs: list[Output]
    """A prediction for each text."""


class CompletionRequest(BaseModel):
    """A request of the OpenAI API for completions, as far as this model can answer it."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"prompt": [EXAMPLE], "max_tokens": 32}]},
    )

    model: str | None = None
    """Name of the model or of an adapter; see GET /v1/models."""
    prompt: Text | list[Text]
    """One text or several."""
    max_tokens: int | None = None
    """Longest prediction in tokens; by default the model's own."""
    user: str | None = None
    """Ignored."""
    n: int | None = None
    """1 or nothing: the search finds one prediction."""
    best_of: int | None = None
    """1 or nothing."""
    temperature: float | None = None
    """0 or nothing: nothing is sampled."""
    top_p: float | None = None
    """1 or nothing."""
    presence_penalty: float | None = None
    """0 or nothing."""
    frequency_penalty: float | None = None
    """0 or nothing."""
    seed: int | None = None
    """Ignored: equal requests have equal answers."""
    stream: bool | None = None
    """false or nothing: a beam search has no prediction before its end."""
    echo: bool | None = None
    """false or nothing."""
    logprobs: int | None = None
    """Nothing."""
    logit_bias: dict[str, float] | None = None
    """Nothing."""
    stop: str | list[str] | None = None
    """Nothing."""
    suffix: str | None = None
    """Nothing."""

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class Choice(BaseModel):
    """One completion."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    index: int
    """Place of its prompt in the request."""
    text: str
    """The prediction."""
    logprobs: None = None
    """Never there."""
    finish_reason: None = None
    """Unknown: the search returns texts alone."""


class Tokens(BaseModel):
    """Tokens of a request and its answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    prompt_tokens: int
    """Tokens of the texts, with the model's prefix and special tokens."""
    completion_tokens: int
    """Tokens of the predictions, as the tokenizer counts their texts."""
    total_tokens: int
    """The sum of both."""


class Completion(BaseModel):
    """The answer of the OpenAI API for completions."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """A random name."""
    object: Literal["text_completion"] = "text_completion"
    """The kind of the answer."""
    created: int
    """Seconds since 1970."""
    model: str
    """Name of the model or of the adapter."""
    choices: list[Choice]
    """A completion for each prompt."""
    usage: Tokens
    """Tokens of the request."""


class ModelEntry(BaseModel):
    """A name that requests may use."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Name of the model or of an adapter."""
    object: Literal["model"] = "model"
    """The kind of the entry."""
    created: int
    """Seconds since 1970 at which the server started."""
    owned_by: Literal["harness"] = "harness"
    """The server."""


class ModelList(BaseModel):
    """All names that requests may use."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    object: Literal["list"] = "list"
    """The kind of the answer."""
    data: list[ModelEntry]
    """The model, then its adapters."""


class ModelInfo(BaseModel):
    """The model with its defaults and the limits of the server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Name of the model."""
    adapters: list[str]
    """Names of its adapters."""
    prefix: str
    """Text that the server puts before every text."""
    max_source_length: int
    """Longest text in tokens."""
    settings: DecodingSettings
    """The search that is used where a request says nothing else."""
    limits: Limits
    """Limits of the server."""


class Health(BaseModel):
    """The state of the server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["ready", "draining", "failed"]
    """ready; draining: it answers what it accepted and ends; failed: restart it."""


class ErrorDetail(BaseModel):
    """The reason why there is no prediction."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """A word for programs, such as queue_full."""
    message: str
    """A sentence for people."""


class ErrorResponse(BaseModel):
    """The answer of every request that fails."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: ErrorDetail
    """The reason."""
