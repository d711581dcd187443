"""AdaLoRA: its budget over a training, its state, and PEFT's own schedule as the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.model.composition import compose

IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
TEXT = "adalora:r=2,initial=4,alpha=4,every=2,warmup=0.1,final=0.3"
STEPS = 10


class Training:
    """A small training of AdaLoRA, step by step as the harness takes them."""

    def __init__(self, make: Callable[[], Any], backbone: Backbone) -> None:
        recipe = parse(TEXT, installed().compressors)
        model = make()
        torch.manual_seed(7)
        self.model: Any = compose(model, backbone, recipe).eval()
        (self.adalora,) = recipe.compressors
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(weights, lr=0.01)
        self.adalora.on_train_start(self.model, STEPS)
        self.done = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.done += 1
            loss = self.model(input_ids=IDS, labels=IDS).loss
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                self.adalora.on_step(self.model, self.done)
            self.optimizer.zero_grad()

    def diagonals(self) -> torch.Tensor:
        return torch.cat([p for n, p in self.model.named_parameters() if ".lora_E." in n])


def test_ranks_go_down_to_the_budget(shallow: Backbone, make_shallow: Callable[[], Any]) -> None:
    training = Training(make_shallow, shallow)
    layers = sum(".lora_E." in name for name, _ in training.model.named_parameters())
    left = []
    for _ in range(STEPS):
        training.train(1)
        left.append(int(training.diagonals().count_nonzero()))
    assert left[0] == 4 * layers
    assert left[6:] == [2 * layers] * 4
    assert 2 * layers < left[3] < 4 * layers


def test_it_trains_as_peft_does_by_itself(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    ours = Training(make_shallow, shallow)
    names = [n for r in ("ffn.in", "ffn.out") for n in shallow.modules(make_shallow(), r)]
    config = AdaLoraConfig(
        target_modules=names,
        target_r=2,
        init_r=4,
        lora_alpha=4,
        tinit=1,
        tfinal=3,
        deltaT=2,
        total_step=STEPS,
        orth_reg_weight=0.0,
    )
    plain = make_shallow()
    torch.manual_seed(7)
    theirs: Any = get_peft_model(plain, config, adapter_name="adalora").eval()
    optimizer = torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], lr=0.01)
    for step in range(1, STEPS + 1):
        theirs(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        theirs.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    ours.train(STEPS)
    weights = theirs.base_model.model.state_dict()
    for name, value in ours.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def test_a_resumed_training_goes_on_identically(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    whole = Training(make_shallow, shallow)
    whole.train(STEPS)
    for half in (4, 8):
        first, second = (Training(make_shallow, shallow) for _ in range(2))
        first.train(half)
        state = first.adalora.state_dict()
        json.dumps(state["kept"])
        assert not any("/" in name for values in state.values() for name in values)
        second.model.load_state_dict(first.model.state_dict())
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        second.adalora.load_state_dict(state)
        second.done = half
        second.train(STEPS - half)
        assert torch.equal(second.diagonals(), whole.diagonals())


def test_the_loss_grows_with_the_distance_from_orthogonal_factors(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    training = Training(make_shallow, shallow)

    class Tokens:
        target_tokens = 12

    def addition() -> torch.Tensor:
        value = training.adalora.loss(training.model, Tokens(), None)  # type: ignore[arg-type]
        assert value is not None
        return value

    with torch.no_grad():
        for name, factor in training.model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                factor.copy_(torch.eye(*factor.shape))
    assert addition().item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for name, factor in training.model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                factor.mul_(2)
    # Every Gram matrix is 4 I; its distance from I has the norm 3 x the square root of the rank.
    assert addition().item() == pytest.approx(12 * 0.5 * 3 * 2, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, pytest.param(3, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_a_very_short_training_ends_as_well(
    shallow: Backbone, make_shallow: Callable[[], Any], steps: int
) -> None:
    training = Training(make_shallow, shallow)
    training.adalora.on_train_start(training.model, steps)
    training.train(steps)
    assert training.diagonals().isfinite().all()
