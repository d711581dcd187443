"""A model's weights in the form that suits prediction, and back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Add the active LoRA updates to the weights; afterwards all is as before, bit for bit.

    PEFT's own way back subtracts the update, which leaves rounding errors in frozen weights. Here
    the update goes into a copy of the adapted weights, in float32, and the original parameters
    come back as they were. Layers whose weights are quantized stay unmerged, since adding to them
    would round their update.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, LoraLayer)
        and not layer.merged
        and not layer.disable_adapters
        and layer.get_base_layer().weight.is_floating_point()
    ]
    originals = [dict(layer.get_base_layer().named_parameters(recurse=False)) for layer in layers]
    try:
        for layer, parameters in zip(layers, originals, strict=True):
            for name, parameter in parameters.items():
                copy = parameter.detach().to(torch.float32, copy=True)
                setattr(layer.get_base_layer(), name, nn.Parameter(copy, requires_grad=False))
            layer.merge()
        yield
    finally:
        for layer, parameters in zip(layers, originals, strict=True):
            layer.merged_adapters.clear()
            for name, parameter in parameters.items():
                setattr(layer.get_base_layer(), name, parameter)


@contextmanager
def linear_weights_in(
    model: nn.Module, dtype: torch.dtype, but: nn.Module | None = None
) -> Iterator[None]:
    """Store the weights of linear layers in ``dtype`` for a while; afterwards all is as before.

    Autocast converts frozen weights anew at each use, which costs more than it saves when a step
    of generation reads all weights for a few rows.

    Args:
        model: whose layers.
        dtype: to store them in.
        but: a layer to leave alone.
    """
    originals = {
        layer: layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
        and layer.weight.is_floating_point()
        and layer.weight.dtype != dtype
        and layer is not but
    }
    try:
        for layer, weight in originals.items():
            layer.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        yield
    finally:
        for layer, weight in originals.items():
            layer.weight = weight


@contextmanager
def in_float32(layer: nn.Linear) -> Iterator[None]:
    """Compute a layer in float32 within autocast, for a while.

    The layer that gives logits needs it: bfloat16 keeps 8 bits, so that the logits of unlike
    hypotheses come out equal, and which of them a beam follows is chance.
    """

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return type(layer).forward(layer, x.float())

    layer.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del layer.forward
