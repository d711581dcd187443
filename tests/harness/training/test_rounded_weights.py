"""Weights rounded together against autocast, which rounds each by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.training.rounded_weights import WeightGroup, round_together

WIDTH = 6


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.unused, self.frozen = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, WIDTH)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.narrow(self.wide(x).relu()) + x
        return made + self.frozen(x)


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
    monkeypatch.setattr("harness.training.rounded_weights._ELEMENTS", request.param)
    return request.param


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
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs is not None and ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


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
    group = WeightGroup(torch.bfloat16, [nn.Parameter(torch.ones(3)) for _ in range(2)])
    first, second = group.take(0), group.take(1)
    assert first.dtype == torch.bfloat16
    assert group._rounded == [None, None]
    assert group.take(1) is not second
