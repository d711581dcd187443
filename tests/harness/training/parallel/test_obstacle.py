"""Models that cannot be divided among processes, each with its reason."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness import Backbone, Compressor, Options, Stage
from harness.api.recipe import Recipe
from harness.spec.setting_groups import TrainSettings
from harness.training.parallel.obstacle import sharding_obstacle


class Plain(Compressor[Any]):
    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: Any, *_: Any) -> Any:
        return model


class Acting(Plain):
    def on_step(self, model: Any, step: int) -> None: ...


class Adding(Plain):
    def loss(self, *_: Any) -> Tensor | None:
        return None


def obstacle(backbone: Backbone, kind: type[Plain] = Plain, **settings: Any) -> str | None:
    model = backbone.skeleton()
    recipe = Recipe((kind("it", Options()),))
    return sharding_obstacle(model, backbone, recipe, TrainSettings(**settings))


def test_a_backbone_can_be_divided(backbone: Backbone) -> None:
    assert obstacle(backbone) is None


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (Plain, {"optimizer": "adafactor"}, "adafactor"),
        (Acting, {}, "it acts on whole weights"),
        (Adding, {}, "it adds to the loss"),
    ],
)
def test_the_reason_names_what_stands_in_the_way(
    backbone: Backbone, kind: type[Plain], settings: dict[str, Any], reason: str
) -> None:
    assert reason in str(obstacle(backbone, kind, **settings))


def test_weights_that_layers_share_stand_in_the_way(backbone: Backbone) -> None:
    model = backbone.skeleton()
    first, *_, last = backbone.modules(model, "ffn.out").values()
    last.weight = first.weight
    assert sharding_obstacle(model, backbone, Recipe(()), TrainSettings()) == "layers share weights"


def test_a_weight_of_no_dimension_stands_in_the_way(backbone: Backbone) -> None:
    model = backbone.skeleton()
    model.register_parameter("gate", nn.Parameter(torch.tensor(1.0)))
    reason = sharding_obstacle(model, backbone, Recipe(()), TrainSettings())
    assert reason == "a weight is a single number"
