"""Typed options of plugins: validated, documented, and unknown ones are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import HarnessError, did_you_mean


class Options(BaseModel):
    """Base of a plugin's options; the docstring under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


O = TypeVar("O", bound=BaseModel)  # noqa: E741


def validate(model: type[O], values: Mapping[str, Any], owner: str) -> O:
    """Build ``model`` from ``values``, with errors a user can act on.

    Args:
        model: the pydantic model of the options.
        values: option name -> value; text is converted to the field's type.
        owner: whose options these are, for messages, e.g. ``compressor 'lora_ff'``.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise HarnessError(*explain(error, model, owner)) from error


def explain(error: ValidationError, model: type[BaseModel], owner: str) -> tuple[str, str]:
    """Turn pydantic's first complaint into (message, hint)."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        inner: type[BaseModel] = model
        for part in first["loc"][:-1]:
            annotation = inner.model_fields[str(part)].annotation
            assert isinstance(annotation, type)
            inner = annotation
        name = str(first["loc"][-1])
        return f"{owner} has no option {path!r}.", did_you_mean(name, inner.model_fields)
    if not path:
        return f"{owner}: {first['msg'].removeprefix('Value error, ')}.", ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{owner}: option {path}={first['input']!r} is not valid: {message}.", ""


def describe(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """List (name, type, default, documentation) of each option."""
    rows = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        kind = kind.replace("typing.", "")
        default = "required" if info.is_required() else repr(info.default)
        rows.append((name, kind, default, info.description or ""))
    return rows
