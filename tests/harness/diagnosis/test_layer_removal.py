"""Each layer is removed alone; the model stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from harness.diagnosis.layer_removal import block_influence, remove_each_layer
from harness.diagnosis.losses import example_losses, per_token, target_tokens

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone

MakeModel = Callable[[], "PreTrainedModel"]


def mean_loss(model: PreTrainedModel, batches: list[BatchEncoding]) -> float:
    """Return the loss that transformers computes, over all target tokens."""
    tokens = [int((batch["labels"] != -100).sum()) for batch in batches]
    with torch.no_grad():
        losses = [float(model(**batch).loss) for batch in batches]
    return sum(a * b for a, b in zip(losses, tokens, strict=True)) / sum(tokens)


def test_the_increase_is_that_of_a_copy_without_the_layer(
    backbone: Backbone, make_model: MakeModel, batches: list[BatchEncoding]
) -> None:
    model = make_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = mean_loss(model, batches)
    losses = example_losses(model, batches)
    assert per_token(losses, target_tokens(batches)).value == pytest.approx(whole, rel=1e-5)
    seen: list[tuple[int, int]] = []
    found = remove_each_layer(model, backbone, batches, losses, lambda *counts: seen.append(counts))
    assert [(layer.stack, layer.number) for layer in found] == [
        *(("encoder", i) for i in range(1, 9)),
        *(("decoder", i) for i in range(1, 8)),
    ]
    assert seen[-1] == (15, 15)
    # The first block of T5 holds the position bias of all others.
    for layer in (found[0], found[3], found[8], found[14]):
        pruned = copy.deepcopy(model)
        depth = 8 if layer.stack == "encoder" else 7
        kept = [i for i in range(1, depth + 1) if i != layer.number]
        backbone.keep_layers(pruned, layer.stack, kept)
        increase = mean_loss(pruned, batches) - whole
        assert layer.loss_increase.value == pytest.approx(increase, abs=1e-5)
    assert len({round(layer.loss_increase.value, 6) for layer in found}) > 10
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert mean_loss(model, batches) == whole


def test_a_layer_that_does_nothing_costs_nothing_and_has_no_influence(
    backbone: Backbone, make_model: MakeModel, batches: list[BatchEncoding]
) -> None:
    model = make_model().eval()
    if backbone.name == "tiny-bart":
        pytest.skip("Layers of BART end with a norm: none of them is the identity.")
    layer = backbone.layers(model, "decoder")[3]
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.endswith(("o.weight", "wo.weight")):
                weight.zero_()
    found = remove_each_layer(model, backbone, batches, example_losses(model, batches))
    idle = found[8 + 3]
    assert idle.loss_increase.value == pytest.approx(0, abs=1e-6)
    assert idle.influence == pytest.approx(0, abs=1e-6)
    assert min(one.influence for one in found if one is not idle) > 1e-4


def test_influence_ignores_padding(
    backbone: Backbone, make_model: MakeModel, batches: list[BatchEncoding]
) -> None:
    model = make_model().eval()
    padded = []
    for batch in batches:
        longer = {}
        for name, value in batch.items():
            fill = -100 if name == "labels" else 0
            rest = torch.full((len(value), 3), fill)
            longer[name] = torch.cat([value, rest], dim=1)
        padded.append(type(batch)(longer))
    expected, found = (block_influence(model, backbone, each) for each in (batches, padded))
    for stack in expected:
        assert found[stack] == pytest.approx(expected[stack], rel=1e-4)


def test_the_interval_is_that_of_a_ratio() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    # A population whose ratio is known, and how often intervals of samples cover it.
    tokens = rng.integers(2, 30, 4000).astype(float)
    losses = tokens * rng.normal(2.0, 0.5, 4000)
    truth = losses.sum() / tokens.sum()
    covered = 0
    for _ in range(400):
        chosen = rng.choice(4000, 40, replace=False)
        estimate = per_token(losses[chosen], tokens[chosen])
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.91 <= covered / 400 <= 0.985
    assert per_token(losses[:1], tokens[:1]).low is None
