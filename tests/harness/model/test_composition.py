"""Layers and parameters of a model after a recipe is applied."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.model.composition import Layers, compose, count_parameters, kept_layers, layers


def test_kept_layers_are_known_by_identity(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    model = make_model()
    before = layers(model, backbone)
    recipe = parse("lora_ff+lprun:encoder=2.4-6,decoder=bottom", installed().compressors)
    model = compose(model, backbone, recipe)
    # The decoder's 7 layers lose as many as the alternating pattern would drop: the fourth only.
    expected = {"encoder": [2, 4, 5, 6], "decoder": [2, 3, 4, 5, 6, 7]}
    assert kept_layers(before, layers(model, backbone)) == expected


def test_a_wrapped_or_shared_layer_is_still_that_layer() -> None:
    one, two, three = (nn.Linear(2, 2) for _ in range(3))
    before: Layers = {"encoder": [one, two, three], "decoder": [one]}
    after: Layers = {"encoder": [nn.Sequential(three), one, one], "decoder": [nn.Linear(2, 2)]}
    assert kept_layers(before, after) == {"encoder": [3, 1, 1], "decoder": []}


def test_tied_weights_count_once_however_they_are_tied() -> None:
    model = nn.ModuleList([nn.Linear(3, 5, bias=False) for _ in range(3)])
    first, same, alias = (layer for layer in model if isinstance(layer, nn.Linear))
    same.weight = first.weight
    alias.weight = nn.Parameter(first.weight.detach())
    count = count_parameters(model)
    assert (count.total, count.trainable, count.total_bytes) == (15, 15, 60)


def test_slices_of_one_storage_are_parameters_of_their_own() -> None:
    whole = torch.zeros(4, 6)
    model = nn.ParameterList([nn.Parameter(whole[:1]), nn.Parameter(whole[1:])])
    model[0].requires_grad_(False)
    count = count_parameters(model)
    assert (count.total, count.trainable) == (24, 18)


def test_bytes_follow_the_precision() -> None:
    model = nn.ModuleList([nn.Linear(4, 4).to(torch.bfloat16), nn.Linear(4, 4)])
    model[0].requires_grad_(False)
    count = count_parameters(model)
    assert (count.total_bytes, count.trainable_bytes) == (20 * 2 + 20 * 4, 20 * 4)
