"""Typed options of plugins: validated and documented; unknown options are errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import HarnessError, did_you_mean


class Options(BaseModel):
    """Base class of a plugin's options; the docstring under a field documents it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        # Options of plugins may be infinite, and JSON must keep that.
        ser_json_inf_nan="constants",
    )


NO_OPTIONS: Any = Options
"""The model of a plugin without options."""

O = TypeVar("O", bound=BaseModel)  # noqa: E741


def validate(model: type[O], values: Mapping[str, Any], owner: str) -> O:
    """Build ``model`` from ``values``, with errors that a user can act on.

    Args:
        model: the pydantic model of the options.
        values: option name -> value; text is converted to the field's type.
        owner: the owner of the options for messages, e.g. ``compressor 'lora_ff'``.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise HarnessError(*explain(error, model, owner)) from error


def explain(error: ValidationError, model: type[BaseModel], owner: str) -> tuple[str, str]:
    """Convert pydantic's first error into (message, hint)."""
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
    """List (name, type, default, documentation) of each option, as a user writes them."""
    rows = []
    for name, info in model.model_fields.items():
        kind = ", ".join([_kind(info.annotation), *_bounds(info.metadata)])
        required = info.is_required()
        default = "required" if required else written(info.get_default(call_default_factory=True))
        doc = " ".join((info.description or "").replace("``", "").split())
        rows.append((name, kind, default, doc))
    return rows


def written(value: object) -> str:
    """Write an option's value as in a recipe or on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    # 1e+16 would read as two compressors joined by a plus sign.
    return str(value).replace("e+", "e") if isinstance(value, float) else str(value)


def _kind(annotation: Any) -> str:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(written(choice) for choice in arguments)
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(_kind(choice) for choice in arguments if choice is not NoneType)
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _bounds(metadata: Iterable[Any]) -> list[str]:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return [
        f"{sign} {getattr(constraint, name)}"
        for constraint in metadata
        for name, sign in signs.items()
        if hasattr(constraint, name)
    ]
