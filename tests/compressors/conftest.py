"""A shallow backbone of each family, for tests of many methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness import Backbone


@pytest.fixture
def shallow(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The backbone with 3 and 2 layers."""
    deep = type(backbone).config

    def config(self: Backbone) -> Any:
        values = deep(self)
        bart = values.model_type == "bart"
        setattr(values, "encoder_layers" if bart else "num_layers", 3)
        setattr(values, "decoder_layers" if bart else "num_decoder_layers", 2)
        return values

    monkeypatch.setattr(type(backbone), "config", config)
    return backbone


@pytest.fixture
def make_shallow(shallow: Backbone) -> Callable[[], Any]:
    """Return a function that builds the shallow model, always with the same random weights."""
    import torch

    def make() -> Any:
        torch.manual_seed(0)
        return shallow.load("random")

    return make
