"""Applying a recipe to a model, and what is left of the model afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api.backbone import STACKS, Backbone, Stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from harness.api.recipe import Recipe

Layers = Mapping[Stack, Sequence["nn.Module"]]


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model; tied weights count once.

    Attributes:
        total: number of all of them.
        trainable: number of those that require a gradient.
        total_bytes: bytes of all of them, in the precision that they are held in.
        trainable_bytes: bytes of those that require a gradient.
    """

    total: int
    trainable: int
    total_bytes: int
    trainable_bytes: int


def compose(model: PreTrainedModel, backbone: Backbone, recipe: Recipe) -> PreTrainedModel:
    """Apply the compressors of a recipe, stage by stage, and return the model.

    The model that was passed in must not be used any more: compressors may work in place.
    """
    for compressor in recipe.compressors:
        model = compressor.apply(model, backbone)
    for parameter in backbone.always_trained(model):
        parameter.requires_grad_(True)
    return model


def layers(model: PreTrainedModel, backbone: Backbone) -> dict[Stack, list[nn.Module]]:
    """Return the layers of both stacks as they are now; see ``kept_layers``."""
    return {stack: list(backbone.layers(model, stack)) for stack in STACKS}


def kept_layers(before: Layers, after: Layers) -> dict[Stack, list[int]]:
    """Return which layers are left in each stack, 1-indexed by where they were before.

    A layer is known by identity, bare or inside a wrapper, so that this holds for any
    compressor. A layer that is left twice (weights shared over depth) is named twice.

    Args:
        before: the layers before ``compose``.
        after: the layers after it.
    """
    kept: dict[Stack, list[int]] = {}
    for stack in STACKS:
        # The modules in `before` are alive, so no id can belong to another one by now.
        number = {id(layer): i for i, layer in enumerate(before[stack], start=1)}
        kept[stack] = [
            number[id(module)]
            for layer in after[stack]
            for module in layer.modules()
            if id(module) in number
        ]
    return kept


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count parameters over unique storages, so that tied weights count once."""
    unique = {(p.untyped_storage()._cdata, p.storage_offset()): p for p in model.parameters()}
    trainable = [p for p in unique.values() if p.requires_grad]
    return ParameterCount(
        total=sum(p.numel() for p in unique.values()),
        trainable=sum(p.numel() for p in trainable),
        total_bytes=sum(p.nbytes for p in unique.values()),
        trainable_bytes=sum(p.nbytes for p in trainable),
    )
