"""Decides whether a model can be sharded."""

from __future__ import annotations

from collections import Counter

from torch import nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone
from harness.api.compressor import Compressor
from harness.api.recipe import Recipe
from harness.spec.setting_groups import TrainSettings


def sharding_obstacle(
    model: PreTrainedModel, backbone: Backbone, recipe: Recipe, settings: TrainSettings
) -> str | None:
    """Return the reason why a training cannot be sharded, or None if it can.

    Args:
        model: the composed model, which may be a skeleton.
        backbone: finds the model's layers.
        recipe: the recipe that the model was composed with.
        settings: the settings of training.
    """
    compressors = recipe.compressors
    acting = [
        c.name
        for c in compressors
        if type(c).on_step is not Compressor.on_step
        or type(c).state_dict is not Compressor.state_dict
    ]
    adding = [c.name for c in compressors if type(c).loss is not Compressor.loss]
    parameters = [*model.parameters()]
    obstacles = {
        f"the optimizer {settings.optimizer} computes on whole matrices": (
            settings.optimizer != "adamw"
        ),
        f"{''.join(acting[:1])} acts on whole weights during training": acting,
        f"{''.join(adding[:1])} adds to the loss, and may read any weight": adding,
        "the encoder's outputs are computed before training, by a whole model": (
            recipe.encoder_storage is not None
        ),
        "the model drops layers at random, and a process that drops a layer would not gather it": (
            any(getattr(model.config, f"{stack}_layerdrop", 0) for stack in STACKS)
        ),
        "some weights are quantized": not all(p.is_floating_point() for p in parameters),
        "a weight is a single number": any(p.dim() == 0 for p in parameters),
        "layers share weights": _shares_weights(model, backbone),
    }
    return next((reason for reason, stands in obstacles.items() if stands), None)


def _shares_weights(model: PreTrainedModel, backbone: Backbone) -> bool:
    """Return whether a weight is in several layers, or in a layer and outside of it."""
    layers: list[nn.Module] = [x for stack in STACKS for x in backbone.layers(model, stack)]
    if len({id(layer) for layer in layers}) < len(layers):
        return True
    inside = {id(module) for layer in layers for module in layer.modules()}
    rest = {
        id(parameter)
        for module in model.modules()
        if id(module) not in inside
        for parameter in module.parameters(recurse=False)
    }
    units = [{id(p) for p in layer.parameters()} for layer in layers]
    counts = Counter(identity for unit in [rest, *units] for identity in unit)
    return max(counts.values(), default=1) > 1
