"""Capabilities of recipes, found on skeletons; the cost of what a model does not show."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import nn

from harness import Backbone, Batch, Compressor, Context, Cost, Options, Outputs, Stage
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.costs.capabilities import find_capabilities
from harness.costs.plan import plan_recipes
from harness.model.flops import flop_limit, training_flops
from harness.records.capabilities import Capabilities
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings


class Plain(Compressor[Any]):
    """Changes nothing."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        return model


class Teaching(Plain):
    """Trains with a teacher, and looks at data."""

    needs = frozenset({"data", "teacher"})

    def loss(self, model: Any, batch: Batch, outputs: Outputs) -> Any:
        return None

    def on_step(self, model: Any, step: int) -> None:
        return


class Wrapping(Plain):
    """Replaces the LM head by a module that never merges."""

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        model.set_output_embeddings(nn.Sequential(model.get_output_embeddings()))
        return model


class Reading(Plain):
    """Reads a weight when it merges."""

    def merge(self, model: Any) -> Any:
        float(next(iter(model.parameters())).detach().sum())
        return model


class Costly(Plain):
    """Costs operations and memory that no model shows."""

    def cost(self, model: Any, source_tokens: int, target_tokens: int) -> Cost:
        return Cost(flops=1000 * source_tokens + target_tokens, bytes=12345)


def capabilities(backbone: Backbone, text: str) -> Capabilities:
    return find_capabilities(backbone, installed().recipe(text))


def of(backbone: Backbone, kind: type[Plain]) -> Capabilities:
    return find_capabilities(backbone, Recipe((kind("tested", Options()),)))


@pytest.mark.parametrize(
    ("text", "structure", "adapter"),
    [
        ("full", False, None),
        ("lprun", True, None),
        ("lora_ff", False, "peft"),
        ("lora_qv+lora_ff", False, "peft"),
        ("lora_ff+lprun", True, "peft"),
    ],
)
def test_capabilities_of_built_in_recipes(
    backbone: Backbone, text: str, structure: bool, adapter: Any
) -> None:
    found = capabilities(backbone, text)
    assert found == Capabilities(
        changes_structure=structure,
        merges=True,
        packs=True,
        shares_beams=backbone.shared_beams,
        acts_in_training=False,
        adds_to_loss=False,
        needs_data=False,
        needs_teacher=False,
        adapter_format=adapter,
    )


def test_a_bias_that_the_published_model_lacks_does_not_merge() -> None:
    found = capabilities(installed().backbone("nano-t5"), "lora_ff:paper_compat=true")
    assert found.merges is False
    assert ".bias" in found.obstacles["merges"]


def test_what_a_plugin_does_is_found(backbone: Backbone) -> None:
    found = of(backbone, Teaching)
    assert found.acts_in_training
    assert found.adds_to_loss
    assert found.needs_data
    assert found.needs_teacher
    assert not of(backbone, Plain).acts_in_training
    wrapped = of(backbone, Wrapping)
    assert not wrapped.packs
    assert "LM head" in wrapped.obstacles["packs"]
    assert wrapped.merges is False
    reading = of(backbone, Reading)
    assert reading.merges is None
    assert "meta" in reading.obstacles["merges"]


@pytest.mark.fast_on("t5")
def test_the_flop_limit_counts_a_teacher_and_other_costs(backbone: Backbone) -> None:
    full = training_flops(backbone.skeleton(), 20, 10)

    def limit(kind: type[Plain]) -> float:
        return flop_limit(backbone, Recipe((kind("tested", Options()),)), 20, 10)

    assert limit(Plain) == 1
    assert limit(Teaching) == pytest.approx(full.total / (full.total + full.forward))
    assert limit(Costly) == pytest.approx(full.total / (full.total + 20010))


@pytest.mark.fast_on("bart")
def test_a_plan_has_capabilities_and_costs(backbone: Backbone) -> None:
    recipes = [Recipe((kind("tested", Options()),)) for kind in (Plain, Costly, Teaching)]
    spec = RunSpec(device="cpu", train=TrainSettings(batch_size=1))
    plain, costly, teaching = plan_recipes(backbone, recipes, 20, 10, spec=spec)
    assert plain.memory
    assert costly.memory
    assert teaching.memory
    assert costly.memory.tensor_bytes - plain.memory.tensor_bytes == 12345
    assert costly.flop_limit_relative_speed < plain.flop_limit_relative_speed == 1
    assert teaching.memory.parts.teacher > plain.memory.parts.teacher == 0
    assert teaching.capabilities.needs_teacher
