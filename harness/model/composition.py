"""Applies a recipe to a model, and counts the layers and parameters of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from harness.api.backbone import STACKS, Backbone, Stack
from harness.errors import HarnessError
from harness.model.contexts import default_context
from harness.model.frozen_encoder import require_frozen_encoder

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from harness.api.context import Context
    from harness.api.recipe import Recipe
    from harness.records.report import StructureChange

Layers = Mapping[Stack, Sequence["nn.Module"]]


class LayerNumbers:
    """The numbers of a backbone's layers, from 1, which a layer keeps when others are dropped.

    Dropped layers are not kept in memory.

    Args:
        before: the layers before ``compose``.
    """

    def __init__(self, before: Layers) -> None:
        self._numbers = {
            stack: WeakKeyDictionary({layer: i for i, layer in enumerate(before[stack], start=1)})
            for stack in STACKS
        }

    def kept(self, after: Layers) -> dict[Stack, list[int]]:
        """Return the original numbers of the layers that are left in each stack.

        A layer is recognised by identity, bare or inside a wrapper, so that this works for any
        compressor. A layer that is used twice (weights shared over depth) appears twice.
        """
        return {
            stack: [
                self._numbers[stack][module]
                for layer in after[stack]
                for module in layer.modules()
                if module in self._numbers[stack]
            ]
            for stack in STACKS
        }


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model; tied weights count once.

    Attributes:
        total: number of all parameters.
        trainable: number of parameters that require a gradient.
        total_bytes: bytes of all parameters, in the precision in which they are stored.
        trainable_bytes: bytes of the parameters that require a gradient.
    """

    total: int
    trainable: int
    total_bytes: int
    trainable_bytes: int


def compose(
    model: PreTrainedModel, backbone: Backbone, recipe: Recipe, context: Context | None = None
) -> PreTrainedModel:
    """Apply the compressors of a recipe, stage by stage, and return the model.

    Do not use the passed model afterwards: compressors may change it in place.

    Args:
        model: the backbone's model or skeleton.
        backbone: the backbone that the model came from.
        recipe: the recipe to apply.
        context: what the compressors may ask for; by default random tokens and pre-trained weights.

    Raises:
        HarnessError: a compressor cannot be applied, or the encoder's outputs are to be stored and
            something in it is trained; the message names the compressor.
    """
    context = context or default_context(model, backbone)
    context.needs = recipe.needs
    for compressor in recipe.compressors:
        try:
            model = compressor.apply(model, backbone, context)
        except HarnessError as error:
            if compressor.name not in error.message:
                error.message = f"{compressor.name}: {error.message}"
            raise
    for parameter in backbone.always_trained(model):
        parameter.requires_grad_(True)
    require_frozen_encoder(model, recipe)
    return model


def change_structure(
    model: PreTrainedModel, backbone: Backbone, recipe: Recipe, changes: Iterable[StructureChange]
) -> None:
    """Make changes of the structure in place, those of a training or again those of an earlier one.

    Args:
        model: the composed model, without an engine's patches.
        backbone: the backbone that the model came from.
        recipe: the recipe that the model was composed with.
        changes: the changes, in order.
    """
    compressors = {compressor.name: compressor for compressor in recipe.compressors}
    for change in changes:
        compressors[change.compressor].make_change(model, backbone, change.change)
        for parameter in backbone.always_trained(model):
            parameter.requires_grad_(True)


def layers(model: PreTrainedModel, backbone: Backbone) -> dict[Stack, list[nn.Module]]:
    """Return the present layers of both stacks; see ``LayerNumbers``."""
    return {stack: list(backbone.layers(model, stack)) for stack in STACKS}


def kept_layers(before: Layers, after: Layers) -> dict[Stack, list[int]]:
    """Return the original numbers of the layers that are left; see ``LayerNumbers``.

    Args:
        before: the layers before ``compose``.
        after: the layers after ``compose``.
    """
    return LayerNumbers(before).kept(after)


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count parameters over unique storages, so that tied weights count once.

    A parameter that holds codes of more weights than it has elements says so as ``elements``.
    """
    unique = {(p.untyped_storage()._cdata, p.storage_offset()): p for p in model.parameters()}
    trainable = [p for p in unique.values() if p.requires_grad]
    return ParameterCount(
        total=sum(getattr(p, "elements", p.numel()) for p in unique.values()),
        trainable=sum(p.numel() for p in trainable),
        total_bytes=sum(p.nbytes for p in unique.values()),
        trainable_bytes=sum(p.nbytes for p in trainable),
    )
