"""LoRA: what is injected where, what is trained, and what is left after merging."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from harness import Backbone, Role
from harness.api.plugins import installed
from harness.api.recipe import Recipe, parse
from harness.model.composition import compose, count_parameters

FF: tuple[Role, ...] = ("ffn.in", "ffn.out")
QV: tuple[Role, ...] = ("self_attn.q", "self_attn.v", "cross_attn.q", "cross_attn.v")
RECIPES = [
    pytest.param("lora_ff", marks=pytest.mark.slow),
    pytest.param("lora_qv:r=4,alpha=4", marks=pytest.mark.slow),
    pytest.param("lora_ff:bias=false", marks=pytest.mark.slow),
    "lora_ff+lprun",
    pytest.param("lora_qv+lprun:strategy=bottom", marks=pytest.mark.slow),
    "lora_ff+lora_qv",
]
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])


def recipe(text: str) -> Recipe:
    return parse(text, installed().compressors)


def without_adapters(text: str) -> str:
    return "+".join(part for part in text.split("+") if part.startswith("lprun")) or "full"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0))
    return torch.as_tensor(output.logits)


def train_a_little(model: Any) -> None:
    """Move every trained weight, LoRA's zero B included, away from where it started."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("text", RECIPES)
def test_at_first_nothing_is_changed(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    plain = compose(make_model(), backbone, recipe(without_adapters(text)))
    adapted = compose(make_model(), backbone, recipe(text))
    torch.testing.assert_close(logits(adapted), logits(plain), rtol=0, atol=0)


@pytest.mark.parametrize("text", RECIPES)
def test_the_merged_model_is_a_plain_one_with_the_same_logits(
    backbone: Backbone, make_model: Callable[[], Any], tmp_path: Any, text: str
) -> None:
    parts = recipe(text)
    model = compose(make_model(), backbone, parts)
    untrained = logits(model)
    train_a_little(model)
    adapted = logits(model)
    assert (adapted - untrained).abs().max() > 0.01
    for compressor in reversed(parts.compressors):
        model = compressor.merge(model)
    # Sums in another order, through fifteen layers: equal to a part in ten thousand.
    tolerance = 1e-4 * float(adapted.abs().max())
    torch.testing.assert_close(logits(model), adapted, rtol=0, atol=tolerance)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)


@pytest.mark.parametrize("text", RECIPES)
def test_gradients_only_where_expected(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    names = {part.name: part.options for part in recipe(text).compressors}
    plain = compose(make_model(), backbone, recipe(without_adapters(text)))
    expected = set()
    for name, roles in (("lora_ff", FF), ("lora_qv", QV)):
        if name not in names:
            continue
        for role in roles:
            for path, module in backbone.modules(plain, role).items():
                expected |= {f"{path}.lora_{ab}.{name}.weight" for ab in "AB"}
                if isinstance(module, nn.Linear) and module.bias is not None and names[name].bias:
                    expected.add(f"{path}.base_layer.bias")

    model = compose(make_model(), backbone, recipe(text))
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == expected
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize(
    "text", ["lora_ff:bias=false+lora_qv", "lora_ff+lora_qv:bias=false", "lora_ff+lora_qv"]
)
def test_two_adapters_train_what_each_says(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    def trained(text: str) -> set[str]:
        model = compose(make_model(), backbone, recipe(text))
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert trained(text) == set.union(*(trained(part) for part in text.split("+")))


def test_one_layer_against_the_formula(backbone: Backbone, make_model: Callable[[], Any]) -> None:
    model = compose(make_model(), backbone, recipe("lora_ff:r=4,alpha=6"))
    train_a_little(model)
    name, module = next(iter(backbone.modules(model, "ffn.in").items()))
    layer: Any = module.eval()
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(2))
    a, b = layer.lora_A["lora_ff"].weight, layer.lora_B["lora_ff"].weight
    assert a.shape == (4, layer.in_features), name
    expected = nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias)
    expected = expected + (6 / 4) * x @ a.T @ b.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_another_seed_draws_another_adapter(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    def first_a(seed: int) -> torch.Tensor:
        model = make_model()
        torch.manual_seed(seed)
        model = compose(model, backbone, recipe("lora_ff"))
        weight = next(p for n, p in model.named_parameters() if ".lora_A." in n)
        return torch.as_tensor(weight.detach().clone())

    assert torch.equal(first_a(1), first_a(1))
    assert not torch.equal(first_a(1), first_a(2))


@pytest.mark.parametrize("text", [*RECIPES, "full", "lprun"])
def test_a_skeleton_and_a_real_model_are_composed_alike(
    backbone: Backbone, make_model: Callable[[], Any], text: str
) -> None:
    skeleton = compose(backbone.skeleton(), backbone, recipe(text))
    model = compose(make_model(), backbone, recipe(text))
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert count_parameters(skeleton) == count_parameters(model)
    assert [(n, p.shape, p.requires_grad) for n, p in skeleton.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in model.named_parameters()
    ]


def test_generation_with_an_adapter_agrees_with_and_without_cache(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    model = compose(make_model(), backbone, recipe("lora_ff+lprun")).eval()
    train_a_little(model)
    same = {"min_new_tokens": 10, "max_new_tokens": 10, "num_beams": 3, "do_sample": False}
    cached, plain = (model.generate(input_ids=IDS, use_cache=c, **same) for c in (True, False))
    assert torch.equal(cached, plain)
