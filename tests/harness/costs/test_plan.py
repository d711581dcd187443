"""Parameters, layers, FLOPs and storage against published numbers and formulas by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.costs.plan import plan_recipes
from harness.model.composition import compose, count_parameters, kept_layers, layers
from harness.model.flops import StepFlops, training_flops
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings

SMALL = RunSpec(train=TrainSettings(batch_size=1))
"""Settings of plans whose memory is not looked at: the estimate of a large step takes longer."""


def named(reference: str) -> Backbone:
    backbone = installed().backbone(reference)
    assert isinstance(backbone, Backbone)
    return backbone


def recipe(text: str) -> Recipe:
    return parse(text, installed().compressors)


def flops(reference: str, text: str) -> StepFlops:
    backbone = named(reference)
    model = compose(backbone.skeleton(), backbone, recipe(text))
    return training_flops(model, 512, 128, batch_size=8)


@pytest.mark.parametrize(
    ("reference", "text", "trainable"),
    [
        # Zhu et al. 2023, tables 3 and 6, which print them in millions with one decimal.
        ("bart-large", "full", 406_291_456),
        ("bart-large", "lprun", 288_719_872),
        ("bart-large", "lora_qv", 2_433_024),
        ("bart-large", "lora_qv+lprun", 1_622_016),
        ("bart-large", "lora_ff", 4_055_040),
        ("bart-large", "lora_ff+lprun", 2_703_360),
        ("bart-large", "lora_qv:r=4", 663_552),
        ("bart-large", "lora_qv:r=8", 1_253_376),
        ("bart-large", "lora_qv:r=32", 4_792_320),
        ("bart-large", "lora_ff:r=4", 1_105_920),
        ("bart-large", "lora_ff:r=8", 2_088_960),
        ("bart-large", "lora_ff:r=32", 7_987_200),
        ("t5-large", "full:paper_compat=true", 737_639_424),
        ("t5-large", "lprun:paper_compat=true", 443_986_944),
        ("t5-large", "lora_ff:paper_compat=true", 8_110_080),
        ("t5-large", "lora_ff:paper_compat=true+lprun", 4_730_880),
        # Without the biases that the paper's own LoRA layer adds to T5. Each layer has 2 adapted
        # matrices of rank 16 between 1,024 and 4,096; there are 48 layers, or 28 with lprun.
        ("t5-large", "lora_ff", 48 * 2 * 16 * (1024 + 4096)),
        ("t5-large", "lora_ff+lprun", 28 * 2 * 16 * (1024 + 4096)),
    ],
)
def test_trained_parameters_of_the_paper_to_the_last_digit(
    reference: str, text: str, trainable: int
) -> None:
    backbone = named(reference)
    model = compose(backbone.skeleton(), backbone, recipe(text))
    assert count_parameters(model).trainable == trainable


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        # Zhu et al. 2023, table 2; encoder and decoder keep the same layers.
        ("bart-large", [1, 2, 3, 5, 7, 9, 11, 12]),
        ("t5-large", [1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 24]),
    ],
)
def test_kept_layers_of_the_paper(reference: str, kept: list[int]) -> None:
    backbone = named(reference)
    model = backbone.skeleton()
    before = layers(model, backbone)
    model = compose(model, backbone, recipe("lora_ff+lprun"))
    assert kept_layers(before, layers(model, backbone)) == {"encoder": kept, "decoder": kept}


@pytest.mark.parametrize(
    ("reference", "text", "tera"),
    [
        # Computed by hand, matrix by matrix, for 8 pairs of 512 and 128 tokens.
        pytest.param("t5-large", "full", 11.84, marks=pytest.mark.slow),
        ("t5-large", "lora_ff+lprun", 4.80),
        pytest.param("bart-large", "full", 6.13, marks=pytest.mark.slow),
        pytest.param("bart-large", "lprun", 4.19, marks=pytest.mark.slow),
        pytest.param("bart-large", "lora_ff", 4.20, marks=pytest.mark.slow),
        ("bart-large", "lora_ff+lprun", 2.84),
        pytest.param("bart-large", "lora_qv+lprun", 2.88, marks=pytest.mark.slow),
        ("t5-small", "full", 0.88),
        ("t5-small", "lprun", 0.75),
        pytest.param("t5-small", "lora_ff", 0.61, marks=pytest.mark.slow),
        pytest.param("t5-small", "lora_ff+lprun", 0.51, marks=pytest.mark.slow),
        ("t5-small", "lora_qv+lprun", 0.53),
    ],
)
def test_flops_of_a_training_step(reference: str, text: str, tera: float) -> None:
    assert flops(reference, text).total / 1e12 == pytest.approx(tera, rel=0.02)


def test_flops_against_the_formula(backbone: Backbone) -> None:
    batch, source, target = 3, 10, 6
    d, inner, vocabulary, heads_width = 16, 24, 48, 16
    feed_forward = 3 if backbone.skeleton().config.to_dict().get("is_gated_act") else 2
    square, ffn = d * heads_width, feed_forward * d * inner
    encoder = source * (4 * square + ffn) + 2 * source * source * heads_width
    decoder = (
        target * (4 * square + ffn)
        + 2 * target * target * heads_width
        # Cross-attention: queries and output on the target, keys and values on the source.
        + (2 * target + 2 * source) * square
        + 2 * target * source * heads_width
    )
    multiplications = batch * (8 * encoder + 7 * decoder + target * d * vocabulary)
    counted = training_flops(backbone.skeleton(), source, target, batch)
    assert counted == StepFlops(forward=2 * multiplications, backward=4 * multiplications)


def test_frozen_weights_cost_no_weight_gradient(backbone: Backbone) -> None:
    model = backbone.skeleton()
    full = training_flops(model, 10, 6)
    head = model.get_output_embeddings().weight
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is head)
    head_only = training_flops(model, 10, 6)
    assert head_only.forward == full.forward
    # An untied head needs one product, for its own gradient. A tied head is also the embedding,
    # whose gradient passes through all layers.
    if head is model.get_input_embeddings().weight:
        assert 2 * 6 * 16 * 48 < head_only.backward < full.backward
    else:
        assert head_only.backward == 2 * 6 * 16 * 48


def test_flops_are_never_counted_on_real_weights(make_model: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="skeleton"):
        training_flops(make_model(), 10, 6)


@pytest.mark.fast_on("t5")
def test_the_numbers_of_a_plan_are_consistent(backbone: Backbone) -> None:
    # Rank 1, since at a width of 16 the default rank of 16 would cost as much as the layers.
    texts = ["full", "lprun", "lora_ff:r=1+lprun"]
    recipes = [recipe(text) for text in texts]
    full, pruned, both = plan_recipes(backbone, recipes, 20, 8, tasks=3, spec=SMALL)
    assert [plan.recipe for plan in (full, pruned, both)] == texts
    assert full.flop_limit_relative_speed == 1
    assert 1 < pruned.flop_limit_relative_speed < both.flop_limit_relative_speed
    assert full.layers_kept.encoder == [1, 2, 3, 4, 5, 6, 7, 8]
    assert pruned.layers_kept.encoder == both.layers_kept.encoder == [1, 2, 3, 5, 7, 8]
    assert pruned.layers_kept.decoder == both.layers_kept.decoder == [1, 2, 3, 5, 6, 7]
    assert full.parameters.trainable_pct_of_original == 100
    assert pruned.parameters.trainable == pruned.parameters.total
    adapter = both.parameters.trainable
    assert adapter < both.parameters.total < full.parameters.total
    assert both.parameters.original == full.parameters.original == full.parameters.total


@pytest.mark.fast_on("bart")
def test_storage_is_one_base_and_one_adapter_per_task(backbone: Backbone) -> None:
    recipes = [recipe("full"), recipe("lora_ff+lprun")]
    full, both = plan_recipes(backbone, recipes, 20, 8, tasks=5, spec=SMALL)
    # A float32 takes four bytes; tasks of full fine-tuning share nothing.
    assert full.storage.base_bytes == 0
    assert full.storage.total_bytes == 5 * 4 * full.parameters.original
    assert full.storage.relative_to_full == 1
    adapter = both.parameters.trainable
    assert both.storage.bytes_per_task == 4 * adapter
    assert both.storage.base_bytes == 4 * (both.parameters.total - adapter)
    assert both.storage.total_bytes == 4 * (both.parameters.total + 4 * adapter)
    assert both.storage.relative_to_full == pytest.approx(
        both.storage.total_bytes / full.storage.total_bytes
    )
