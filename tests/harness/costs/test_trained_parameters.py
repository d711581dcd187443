"""Trained parameters: `plan` and `profile` against each other, and against formulas by hand.

`profile` counts the trained parameters of a real model in a measured process. Models that are too
large for a test train on shapes alone. The code is the same, and whether a parameter gets a
gradient does not depend on values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.api.task import LengthProfile
from harness.backbones.shapes import SHAPES
from harness.costs.batches import drawn_batches, profile_spec
from harness.costs.shape_tensors import ShapesOnly
from harness.measurement.process import MeasuredProcess
from harness.model.composition import compose, count_parameters
from harness.records.report import LayersKept
from harness.training.build import build_trainer, load_trainer, parameters_of
from harness.training.resolved_run import choose_device, resolve_run
from harness.training.trained_check import check_trained

RECIPES = ("full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun")
BACKBONES = ("nano-t5", *SHAPES)
RANK = 16
SMALL = {"device": "cpu", "train.batch_size": 2}


def backbone_of(name: str) -> Backbone:
    backbone: Backbone = installed().backbone(name)
    return backbone


def recipe_of(text: str) -> Recipe:
    return parse(text, installed().compressors)


def planned(name: str, text: str) -> int:
    """Return the number of trained parameters that `harness plan` counts."""
    backbone = backbone_of(name)
    return count_parameters(compose(backbone.skeleton(), backbone, recipe_of(text))).trainable


def remaining_depth(depth: int, text: str) -> int:
    """Return the depth of a stack after the recipe.

    lprun drops every second layer, from the 4th to the last but two.
    """
    return depth - len(range(4, depth - 1, 2)) if "lprun" in text else depth


def by_hand(config: Any, text: str) -> int:
    """Return the trained parameters by arithmetic on a model's width, depth and vocabulary."""
    count = of_t5 if config.model_type == "t5" else of_bart
    return count(config, text)


def of_t5(c: Any, text: str) -> int:
    d, inner, ffn = c.d_model, c.d_kv * c.num_heads, c.d_ff
    feed_forward = 3 if c.is_gated_act else 2  # Matrices between d and ffn in a layer.
    depth = remaining_depth(c.num_layers, text)
    if "lora_ff" in text:
        return int(2 * depth * feed_forward * RANK * (d + ffn))
    if "lora_qv" in text:
        return int(depth * 6 * RANK * (d + inner))  # Two matrices per attention, three attentions.
    encoder = depth * (4 * d * inner + feed_forward * d * ffn + 2 * d)
    decoder = depth * (8 * d * inner + feed_forward * d * ffn + 3 * d)
    embeddings = (
        (2 if c.is_gated_act else 1) * c.vocab_size * d
    )  # Gated variants have an untied head.
    positions = 2 * c.relative_attention_num_buckets * c.num_heads
    return int(embeddings + positions + encoder + decoder + 2 * d)


def of_bart(c: Any, text: str) -> int:
    d, ffn = c.d_model, c.encoder_ffn_dim
    depth = remaining_depth(c.encoder_layers, text)
    # The biases of adapted layers are trained with the adapters.
    if "lora_ff" in text:
        return int(2 * depth * (2 * RANK * (d + ffn) + ffn + d))
    if "lora_qv" in text:
        return int(depth * 6 * (RANK * 2 * d + d))
    attention, norm = 4 * (d * d + d), 2 * d
    feed_forward = 2 * d * ffn + ffn + d
    encoder = depth * (attention + feed_forward + 2 * norm)
    decoder = depth * (2 * attention + feed_forward + 3 * norm)
    # Positions start at 2; each stack has its own, and a norm after its embeddings.
    embeddings = c.vocab_size * d + 2 * ((c.max_position_embeddings + 2) * d + norm)
    return int(embeddings + encoder + decoder)


def count_with_gradient(name: str, text: str) -> int:
    """Return the number of parameters that get a gradient in a training step on shapes."""
    backbone, recipe = backbone_of(name), recipe_of(text)
    spec = profile_spec(name, "radiology_demo", SMALL)
    lengths = LengthProfile(source_mean=8, target_mean=4)
    step = drawn_batches(
        spec, backbone, installed().task(spec.task, spec.task_options), lengths
    ).longest
    model = compose(backbone.skeleton(), backbone, recipe)
    parameters = parameters_of(model, count_parameters(model).total)
    shapes = ShapesOnly(choose_device("cpu"))
    shapes.adopt(model)
    with shapes:
        kept_layers = LayersKept(encoder=[], decoder=[])
        trainer = build_trainer(model, resolve_run(spec, backbone, recipe), kept_layers, parameters)
    trainer.model.train()
    batches = [trainer.engine.collate(batch) for batch in step.micro_batches]
    with shapes:
        trainer.backward(batches, step.target_tokens)
        check_trained(trainer.optimizer, trainer.trained)
    gradients = {id(p): p.grad for p in trainer.model.parameters() if p.grad is not None}
    return sum(gradient.numel() for gradient in gradients.values())


@pytest.mark.parametrize("name", BACKBONES)
def test_a_plan_counts_what_the_formulas_give(name: str) -> None:
    config = backbone_of(name).config()
    for text in ("full", "lora_qv+lprun", "lora_ff+lprun"):
        assert planned(name, text) == by_hand(config, text), text


@pytest.mark.slow
@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_recipe_trains_on_every_shape_what_is_planned(name: str, text: str) -> None:
    count = planned(name, text)
    assert count == by_hand(backbone_of(name).config(), text)
    assert count == count_with_gradient(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t5-11b", "lora_ff+lprun"),
        pytest.param("t5-3b", "lora_qv", marks=pytest.mark.slow),
        pytest.param("flan-t5-xxl", "lprun", marks=pytest.mark.slow),
        ("bart-large", "lora_qv+lprun"),
    ],
)
def test_large_shapes_train_what_is_planned(name: str, text: str) -> None:
    assert count_with_gradient(name, text) == planned(name, text)


@pytest.mark.parametrize("text", RECIPES)
def test_a_real_model_trains_what_is_planned(text: str) -> None:
    """A measured process builds its model by the same call."""
    spec = profile_spec("nano-t5", "radiology_demo", SMALL)
    trainer = load_trainer(resolve_run(spec, backbone_of("nano-t5"), recipe_of(text)))
    assert trainer.parameters.trainable == planned("nano-t5", text)
    assert trainer.parameters.trainable == sum(p.numel() for p in trainer.trained.values())


@pytest.mark.slow
@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("name", ["nano-t5", "t5-small", "t5-v1_1-small", "bart-base"])
def test_a_measured_process_trains_what_is_planned(name: str, text: str) -> None:
    spec = profile_spec(name, "radiology_demo", {**SMALL, "probe.steps": 1, "probe.rounds": 2})
    lengths = LengthProfile(source_mean=8, target_mean=4)
    frozen = drawn_batches(
        spec, backbone_of(name), installed().task(spec.task, spec.task_options), lengths
    )
    with MeasuredProcess(
        spec.model_copy(update={"recipe": text}), frozen.steps, frozen.longest
    ) as process:
        assert process.parameters.trainable == planned(name, text)
        assert process.window(0, 1) > 0


@pytest.mark.slow
def test_plan_and_profile_report_the_same_parameters(harness: Callable[..., Result]) -> None:
    options = ["--backbone", "nano-t5", "--compressor", "lora_ff+lprun", "--task", "radiology_demo"]
    options += ["--batch-size", "1", "--device", "cpu", "--data", "lengths", "--json"]
    plan = json.loads(harness("plan", *options).stdout)
    profile = harness("profile", *options, "--steps", "1", "--repeats", "2")
    assert profile.exit_code == 0, profile.stderr
    record = json.loads(profile.stdout)
    (row,) = record["recipes"]
    for name in ("parameters", "layers_kept"):
        assert row[name] == plan[name]
    assert row["predicted_memory"] == plan["memory"]
    assert record["batches"] == plan["batches"]
    # The profile counts the timed steps only, which are fewer than those of the plan.
    limit = pytest.approx(plan["flop_limit_relative_speed"], rel=0.05)
    assert row["speed"]["flop_limit_relative"] == limit
