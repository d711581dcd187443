"""Weights merged or rounded for decoding, and restored bit for bit."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from harness.evaluation.weights import in_float32, linear_weights_in, merged


def _adapted(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    config = LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False, lora_dropout=0.5)
    inject_adapter_in_model(config, model)
    layers: list[Any] = [model[0], model[2]]
    for layer in layers:
        layer.get_base_layer().weight.data = layer.get_base_layer().weight.data.to(dtype)
    return model.eval()


def _state(model: nn.Module) -> dict[str, tuple[nn.Parameter, torch.Tensor]]:
    return {name: (p, p.detach().clone()) for name, p in model.named_parameters()}


def _assert_same(model: nn.Module, before: dict[str, tuple[nn.Parameter, torch.Tensor]]) -> None:
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, values) in before.items():
        assert after[name] is parameter
        assert parameter.dtype == values.dtype
        assert torch.equal(parameter, values)


def test_merged_weights_hold_the_update_and_go_back_bit_for_bit() -> None:
    model = _adapted()
    before = _state(model)
    x = torch.randn(5, 8)
    expected = model(x)
    with merged(model):
        layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
        assert all(layer.merged for layer in layers)
        plain = nn.Sequential(layers[0].get_base_layer(), nn.ReLU(), layers[1].get_base_layer())
        torch.testing.assert_close(plain(x), expected)
        torch.testing.assert_close(model(x), expected)
    assert not any(layer.merged for layer in layers)
    _assert_same(model, before)
    assert torch.equal(model(x), expected)


def test_low_precision_weights_take_the_update_in_float32() -> None:
    model = _adapted(torch.bfloat16)
    before = _state(model)
    layer: Any = model[0]
    exact = layer.get_base_layer().weight.float() + layer.get_delta_weight("default")
    with merged(model):
        torch.testing.assert_close(layer.get_base_layer().weight, exact)
    _assert_same(model, before)


def test_an_error_inside_leaves_nothing_changed() -> None:
    model = _adapted()
    before = _state(model)
    with pytest.raises(RuntimeError), merged(model), linear_weights_in(model, torch.bfloat16):
        raise RuntimeError
    assert not model[0].merged
    _assert_same(model, before)


def test_nesting_merges_once() -> None:
    model = _adapted()
    x = torch.randn(5, 8)
    expected = model(x)
    with merged(model):
        with merged(model):
            torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(model(x), expected)


def test_a_tied_embedding_keeps_its_precision() -> None:
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
    head.weight = embedding.weight
    with linear_weights_in(nn.ModuleList([embedding, head]), torch.bfloat16):
        assert head.weight.dtype == torch.bfloat16
        assert embedding.weight.dtype == torch.float32
    assert head.weight is embedding.weight


def test_a_layer_in_float32_escapes_autocast() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8), torch.randn(3, 64)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16), linear_weights_in(layer, torch.bfloat16, layer):
        assert layer(x).dtype == torch.bfloat16
        with in_float32(layer):
            assert torch.equal(layer(x), exact)
        assert layer(x).dtype == torch.bfloat16
