"""Weights rounded in groups against autocast, which rounds them one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.training.engines.rounded_weights import WeightGroup, round_together

WIDTH = 6


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.unused, self.frozen = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, WIDTH)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.narrow(self.wide(x).relu()) + x + self.frozen(x)
        return made


def layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(Layer() for _ in range(3))


def outcome(model: nn.ModuleList, again: bool = False) -> list[Tensor | None]:
    """The result of a forward pass and all gradients."""
    model.zero_grad()
    x = torch.linspace(-1, 1, 5 * WIDTH).view(5, WIDTH).requires_grad_()
    states = x
    with torch.autocast("cpu", torch.bfloat16):
        for layer in model:
            states = checkpoint(layer, states, use_reentrant=False) if again else layer(states)
    states.float().square().sum().backward()
    return [states.detach(), x.grad, *(p.grad for p in model.parameters())]


def same(actual: list[Tensor | None], expected: list[Tensor | None]) -> bool:
    return all(
        (a is None and e is None) or (a is not None and e is not None and torch.equal(a, e))
        for a, e in zip(actual, expected, strict=True)
    )


@pytest.fixture(params=[1, 10**9], ids=["a group a layer", "one group"])
def elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("harness.training.engines.rounded_weights._ELEMENTS", request.param)
    elements: int = request.param
    return elements


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_all_bits_are_autocasts(elements: int, again: bool) -> None:
    expected = outcome(layers())
    model = layers()
    groups, undo = round_together(model, torch.bfloat16)
    assert len(groups) == (3 if elements == 1 else 1)
    with undo:
        assert same(outcome(model, again), expected)


def test_changed_weights_are_rounded_anew(elements: int) -> None:
    model, plain = layers(), layers()
    groups, undo = round_together(model, torch.bfloat16)
    with undo:
        outcome(model)
        for one in (model, plain):
            with torch.no_grad():
                for parameter in one.parameters():
                    parameter.mul_(1.5)
        for group in groups:
            group.forget()
        assert same(outcome(model), outcome(plain))


def test_a_weight_that_is_used_twice_gets_both_gradients() -> None:
    model = layers()
    twice = nn.ModuleList([model[0], model[1], model[0]])
    expected = outcome(twice)
    _, undo = round_together(twice, torch.bfloat16)
    with undo:
        actual = outcome(twice)
    # Both gradients are rounded before they are added up; autocast adds in bfloat16.
    for value, reference in zip(actual, expected, strict=True):
        if reference is not None and value is not None:
            torch.testing.assert_close(value, reference, rtol=0.02, atol=0.02)


def test_names_and_parameters_stay_and_all_is_undone() -> None:
    model = layers()
    before = {name: id(p) for name, p in model.named_parameters()}
    attributes = [set(vars(module)) for module in model.modules()]
    _, undo = round_together(model, torch.bfloat16)
    with undo:
        assert {name: id(p) for name, p in model.named_parameters()} == before
        x = torch.randn(2, WIDTH)
        assert model[0](x).dtype == torch.float32, "without autocast nothing is rounded"
    assert [set(vars(module)) for module in model.modules()] == attributes


def test_a_rounded_weight_is_held_no_longer_than_its_user_holds_it() -> None:
    group = WeightGroup(torch.bfloat16, [[nn.Parameter(torch.ones(3))] for _ in range(2)])
    first, second = group.take(0), group.take(1)
    assert first.dtype == torch.bfloat16
    assert group._rounded == [None, None]
    assert group.take(1) is not second


class Attention(nn.Module):
    """An attention whose three projections have one input."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.q, self.k = (nn.Linear(WIDTH, rows, bias=bias) for rows in (4, 4))
        self.v = nn.Linear(WIDTH, WIDTH, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).T
        made: Tensor = x + scores.softmax(-1).to(torch.bfloat16) @ self.v(x)
        return made


def projections(attention: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    assert isinstance(attention, Attention)
    return attention.q, attention.k, attention.v


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_a_stacked_product_is_that_of_its_parts(bias: bool, again: bool) -> None:
    torch.manual_seed(0)
    model = nn.ModuleList(Attention(bias) for _ in range(3))
    expected = outcome(model, again)
    groups, undo = round_together(model, torch.bfloat16, [projections(m) for m in model])
    products: list[torch.Size] = []

    def note(t: Tensor) -> Tensor:
        products.append(t.shape)
        return t

    with undo:
        actual = outcome(model, again)
        assert [len(group.products) for group in groups] == [3]
        for group in groups:
            group.forget()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            outcome(model)
    assert any(WIDTH in shape and 4 + 4 + WIDTH in shape for shape in products), "not stacked"
    # What differs is where bfloat16 rounds; the gradient of a key's bias is nothing but rounding.
    largest = max(float(t.norm()) for t in expected[1:] if t is not None)
    for value, reference in zip(actual, expected, strict=True):
        assert value is not None
        assert reference is not None
        assert float((value - reference).norm()) < 0.01 * largest


def test_stacked_modules_with_different_inputs_give_correct_results() -> None:
    model, plain = (nn.ModuleList([Attention(True)]) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    _, undo = round_together(model, torch.bfloat16, [projections(model[0])])
    states = torch.randn(3, 4, WIDTH).unbind()
    with undo, torch.autocast("cpu", torch.bfloat16):
        for name in ("q", "v", "k", "v"):
            for x in states:
                expected = getattr(plain[0], name)(x)
                torch.testing.assert_close(getattr(model[0], name)(x), expected)


def test_a_frozen_or_adapted_module_is_not_stacked() -> None:
    model = nn.ModuleList([Attention(False)])
    _, key, _ = projections(model[0])
    key.requires_grad_(False)
    groups, undo = round_together(model, torch.bfloat16, [projections(model[0])])
    with undo:
        assert not groups[0].products
        assert len(groups[0].stacks) == 2
