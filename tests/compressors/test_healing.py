"""Healing: fits against independent ones, and states that are closer to the original's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from compressors.healing import Gap, gaps
from compressors.least_squares import Fit
from harness import Backbone, Stack
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.model.composition import compose, count_parameters

Apply = Callable[[Any, Backbone, str], Any]
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
KEPT: dict[Stack, list[int]] = {"encoder": [1, 2, 3, 6, 7, 8], "decoder": [1, 2, 4, 5, 6, 7]}
LAYERS = "lprun:encoder=1-3.6-8,decoder=1.2.4-7"


@pytest.fixture
def examples() -> tuple[Example, ...]:
    """Return enough random examples for fits of 24 neurons."""
    draw = np.random.default_rng(0).integers
    return tuple(
        Example(draw(3, 48, draw(8, 14)).tolist(), draw(3, 48, draw(8, 14)).tolist())
        for _ in range(16)
    )


def test_gaps() -> None:
    assert gaps(8, [2, 3, 6]) == [Gap(0, 0), Gap(3, 4), Gap(6, 7)]
    assert gaps(3, [1, 2, 3]) == []


@pytest.mark.parametrize("intercept", [False, True])
def test_a_map_is_found_again(intercept: bool) -> None:
    draw = np.random.default_rng(1).standard_normal
    inputs, true = draw((200, 6)), draw((6, 3))
    targets = inputs @ true + 0.1 * draw((200, 3)) + (5 if intercept else 0)
    fit = Fit(intercept=intercept)
    for part in (slice(0, 90), slice(90, 200)):
        fit.add(torch.tensor(inputs[part]), torch.tensor(targets[part]))
    found = fit.solve()
    assert found is not None
    if intercept:
        inputs = np.hstack([inputs, np.ones((200, 1))])
    expected = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


def test_noise_gets_no_map() -> None:
    draw = np.random.default_rng(2).standard_normal
    fit = Fit(intercept=False)
    fit.add(torch.tensor(draw((40, 20))), torch.tensor(draw((40, 3))))
    assert fit.solve() is None


def test_dead_neurons_get_no_map() -> None:
    fit = Fit(intercept=False)
    fit.add(torch.zeros(40, 5).double(), torch.ones(40, 3).double())
    assert fit.solve() is None


def forward(model: Any, example: Example) -> Any:
    with torch.no_grad():
        return model.eval()(
            input_ids=torch.tensor([example.source]),
            labels=torch.tensor([example.target]),
            output_hidden_states=True,
        )


def states(model: Any, stack: Stack, number: int, examples: Sequence[Example]) -> torch.Tensor:
    """Return the states after some layers of a stack, of all tokens of all examples."""
    found = [getattr(forward(model, e), f"{stack}_hidden_states")[number][0] for e in examples]
    return torch.cat(found)


def pruned(make: Callable[[], Any], backbone: Backbone) -> Any:
    model = make()
    for stack, kept in KEPT.items():
        backbone.keep_layers(model, stack, kept)
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(input_ids=IDS, decoder_input_ids=IDS.flip(0))
    return torch.as_tensor(output.logits)


def test_scale_multiplies_the_states_at_a_gap(
    backbone: Backbone, make_model: Callable[[], Any], apply: Apply, examples: tuple[Example, ...]
) -> None:
    original, reference = make_model(), pruned(make_model, backbone)
    factors = {}
    for stack, before, after in (("encoder", 3, 5), ("decoder", 2, 3)):
        own = states(reference, stack, before, examples[:6])  # type: ignore[arg-type]
        target = states(original, stack, after, examples[:6])  # type: ignore[arg-type]
        factors[stack] = factor = float((own * target).sum() / (own * own).sum())

        def scaled(_: Any, __: Any, output: Any, factor: float = factor) -> Any:
            if isinstance(output, tuple):
                return (output[0] * factor, *output[1:])
            return output * factor

        backbone.layers(reference, stack)[before - 1].register_forward_hook(scaled)  # type: ignore[arg-type]
    assert all(abs(factor - 1) > 0.01 for factor in factors.values())
    healed = apply(make_model(), backbone, f"{LAYERS},heal=scale,examples=6")
    torch.testing.assert_close(logits(healed), logits(reference), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits(healed), logits(pruned(make_model, backbone)), atol=1e-3)


def test_a_linear_map_brings_states_closer_to_the_original(
    backbone: Backbone, make_model: Callable[[], Any], apply: Apply, examples: tuple[Example, ...]
) -> None:
    original, plain = make_model(), pruned(make_model, backbone)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    healed = apply(make_model(), backbone, f"{LAYERS},heal=linear,examples=16")
    for stack, place, after in (("encoder", 3, 5), ("decoder", 2, 3)):
        target = states(original, stack, after, examples[:6])  # type: ignore[arg-type]
        errors = [
            float((states(model, stack, place, examples[:6]) - target).square().sum())  # type: ignore[arg-type]
            for model in (healed, plain)
        ]
        assert errors[0] < 0.9 * errors[1], stack
    changed = {n for n, v in healed.state_dict().items() if not torch.equal(v, before[n])}
    layers = {name.split(".layer.")[0].split(".fc2")[0].split(".final")[0] for name in changed}
    prefix = "model.{}.layers." if backbone.name == "tiny-bart" else "{}.block."
    assert layers == {prefix.format("encoder") + "2", prefix.format("decoder") + "1"}


@pytest.mark.parametrize("how", ["scale", "linear"])
def test_a_healed_model_is_a_stock_model_of_the_same_size(
    backbone: Backbone, make_model: Callable[[], Any], apply: Apply, tmp_path: Path, how: str
) -> None:
    text = f"lprun:select=importance,drop=2,heal={how},examples=8"
    healed = apply(make_model(), backbone, text)
    skeleton = compose(backbone.skeleton(), backbone, installed().recipe(text))
    assert count_parameters(healed) == count_parameters(skeleton)
    assert all(not m._forward_hooks for m in healed.modules())
    healed.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(loaded), logits(healed), rtol=0, atol=0)


def test_nothing_is_healed_where_nothing_is_dropped(
    backbone: Backbone, make_model: Callable[[], Any], apply: Apply
) -> None:
    before = make_model().state_dict()
    healed = apply(make_model(), backbone, "lprun:encoder=all,decoder=all,heal=linear,examples=8")
    assert all(torch.equal(value, before[name]) for name, value in healed.state_dict().items())
