"""A shallow backbone of each family, and recipes that look at three examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness import Backbone
from harness.api.plugins import installed
from harness.data.examples import Example


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


@pytest.fixture
def examples() -> tuple[Example, ...]:
    """Return examples of several lengths, so that a batch of them is padded."""
    return (
        Example([5, 6, 7, 20, 21, 1], [8, 1]),
        Example([9, 30, 1], [4, 3, 22, 40, 1]),
        Example([41, 12, 13, 1], [17, 18, 1]),
    )


@pytest.fixture
def apply(examples: tuple[Example, ...]) -> Callable[[Any, Backbone, str], Any]:
    """Return a function that applies a recipe, with the examples as its training data."""
    from harness.data.calibration import CalibrationData
    from harness.model.composition import compose
    from harness.spec.run_spec import RunSpec
    from harness.training.resolved_run import resolve_run
    from harness.training.run_context import run_context

    def apply(model: Any, backbone: Backbone, text: str) -> Any:
        recipe = installed().recipe(text)
        run = resolve_run(RunSpec(weights="random", device="cpu"), backbone, recipe)
        context = run_context(replace(run, calibration=CalibrationData(examples)))
        return compose(model, backbone, recipe, context)

    return apply
