"""Settings as Python gives them: a mapping of dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.spec.run_spec import overlay


def nested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as nested values: ``{"train.epochs": 3}`` as ``{"train": {"epochs": 3}}``.

    Args:
        settings: values by their dotted names; a value may itself be a mapping of settings.
    """
    nested: dict[str, Any] = {}
    for path, value in settings.items():
        inner: Any = nested_settings(value) if isinstance(value, Mapping) else value
        for name in reversed(path.split(".")):
            inner = {name: inner}
        nested = overlay(nested, inner)
    return nested
