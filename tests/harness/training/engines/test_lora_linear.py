"""The fused LoRA linear against PEFT's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from harness.training.engines import lora_linear as module
from harness.training.engines.dropout import drop, drop_on_device
from harness.training.engines.lora_linear import lora_linear, patch_lora, scaled_product


def adapted(bias: bool, dropout: float = 0.0, **more: bool) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10, bias=bias))
    config = LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, target_modules=["0"], **more)
    inject_adapter_in_model(config, model, adapter_name="some_name")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
        if name.endswith("bias"):
            parameter.requires_grad_(True)
    return model


def layer(model: nn.Sequential) -> Any:
    return model[0]


def outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The result and all gradients."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    result = model(x)
    result.backward(torch.linspace(-1, 1, result.numel()).view_as(result))
    assert x.grad is not None
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [result.detach(), x.grad, *gradients]


@pytest.mark.parametrize("bias", [False, True])
def test_result_and_gradients_are_pefts(bias: bool) -> None:
    model = adapted(bias)
    x = torch.randn(2, 4, 6)
    expected = outcome(model, x)
    assert len(expected) == (5 if bias else 4)
    with patch_lora(model):
        actual = outcome(model, x)
    for value, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, reference)


@pytest.mark.parametrize("kind", [drop, drop_on_device])
def test_dropout_is_on_the_way_to_a_and_the_same_both_ways(
    kind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With identities for A and B and no W, the function is the dropout itself."""
    monkeypatch.setattr(module, "drop", kind)
    torch.manual_seed(0)
    eye = torch.eye(5)
    x = torch.randn(300, 5, requires_grad=True)
    a = eye.clone().requires_grad_()
    result = lora_linear(x, torch.zeros(5, 5), None, a, eye, 1.0, 0.25)
    factor = result.detach() / x.detach()
    kept = factor != 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.05)
    torch.testing.assert_close(factor[kept], torch.full((int(kept.sum()),), 4 / 3))
    result.backward(torch.ones_like(result))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, factor)
    # dL/dA[i, j] sums what A saw: the masked input.
    assert a.grad is not None
    torch.testing.assert_close(a.grad, result.detach().sum(0).expand(5, 5))


def test_dropout_only_while_training() -> None:
    model = adapted(False, dropout=0.5)
    x = torch.randn(3, 6)
    with patch_lora(model):
        assert torch.equal(model.eval()(x), model(x))
        assert not torch.equal(model.train()(x), model(x))


def test_merging_and_disabling_adapters_work_while_patched() -> None:
    model = adapted(True)
    x = torch.randn(3, 6)
    with torch.no_grad(), patch_lora(model):
        expected = model(x)
        layer(model).merge()
        torch.testing.assert_close(model(x), expected)
        layer(model).unmerge()
        layer(model).enable_adapters(False)
        assert torch.equal(model(x), layer(model).get_base_layer()(x))


def test_names_parameters_and_copies_are_pefts() -> None:
    model = adapted(True)
    before = {name: id(p) for name, p in model.named_parameters()}
    x = torch.randn(3, 6)
    with patch_lora(model):
        assert {name: id(p) for name, p in model.named_parameters()} == before
        twin = copy.deepcopy(model)
        with torch.no_grad():
            layer(twin).lora_B["some_name"].weight.zero_()
            assert not torch.equal(twin(x), model(x))
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("more", [{"use_dora": True}, {"lora_bias": True}])
def test_other_kinds_keep_pefts_forward(more: dict[str, bool]) -> None:
    model = adapted(True, **more)
    with patch_lora(model):
        assert "forward" not in vars(model[0])


def test_a_trained_base_weight_keeps_pefts_forward() -> None:
    model = adapted(False)
    layer(model).get_base_layer().weight.requires_grad_(True)
    with patch_lora(model):
        assert "forward" not in vars(model[0])


def test_the_input_is_kept_once() -> None:
    """Only x, A, B, W, the narrow product and mask bits are kept for the backward pass."""
    model = adapted(False, dropout=0.5)
    x = torch.randn(64, 6, requires_grad=True)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), patch_lora(model):
        model(x)
    x_elements, narrow, bits = 64 * 6, 64 * 3, 64 * 6 // 8
    assert sorted(saved.values()) == sorted([x_elements, narrow, bits, 6 * 3, 10 * 3, 10 * 6])


def test_both_orders_of_the_scaled_product_are_equal() -> None:
    torch.manual_seed(0)
    wide, narrow = torch.randn(9, 6), torch.randn(9, 2)
    products = [scaled_product(wide, narrow, 0.5, transposed) for transposed in (True, False)]
    torch.testing.assert_close(products[0], 0.5 * wide.T @ narrow)
    torch.testing.assert_close(products[0], products[1])
    assert products[1].is_contiguous()
