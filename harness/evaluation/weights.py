"""Temporary changes of a model's weights for decoding: merged adapters, another precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Fold the updates of PEFT's layers into the weights; afterwards restore them bit for bit.

    PEFT's ``unmerge`` subtracts the update, which leaves rounding errors in frozen weights. Here
    the update goes into a float32 copy of the adapted weights, and the original parameters are put
    back. These layers stay unmerged: quantized ones, since merging would round their update; those
    of a method that PEFT cannot merge; and norms, whose trained copy takes their place anyway.
    """
    layers = [layer for layer in model.modules() if _can_merge(layer)]
    originals = [dict(layer.get_base_layer().named_parameters(recurse=False)) for layer in layers]
    try:
        for layer, parameters in zip(layers, originals, strict=True):
            for name, parameter in parameters.items():
                copy = parameter.detach().to(torch.float32, copy=True)
                setattr(layer.get_base_layer(), name, nn.Parameter(copy, requires_grad=False))
            if not _merge(layer):
                _put_back(layer, parameters)
        yield
    finally:
        for layer, parameters in zip(layers, originals, strict=True):
            _put_back(layer, parameters)


def _can_merge(layer: nn.Module) -> TypeGuard[Any]:
    return (
        isinstance(layer, BaseTunerLayer)
        and not isinstance(layer, LNTuningLayer)
        and not layer.merged
        and not layer.disable_adapters
        and layer.get_base_layer().weight.is_floating_point()
    )


@torch.no_grad()
def _merge(layer: Any) -> bool:
    """Merge the update of a layer; return whether PEFT can."""
    own = [parameter for name, parameter in layer.named_parameters() if "base_layer" not in name]
    before = [parameter.clone() for parameter in own]
    training = layer.training
    layer.eval()  # In training some methods drop parts of the update at random.
    try:
        layer.merge()
    except (NotImplementedError, ValueError):
        return False
    finally:
        layer.train(training)
    # Constrained OFT projects its parameters while it computes the update.
    for parameter, value in zip(own, before, strict=True):
        parameter.copy_(value)
    return True


def _put_back(layer: Any, parameters: Mapping[str, nn.Parameter]) -> None:
    layer.merged_adapters.clear()
    for name, parameter in parameters.items():
        setattr(layer.get_base_layer(), name, parameter)


@contextmanager
def linear_weights_in(
    model: nn.Module, dtype: torch.dtype, excluded: nn.Module | None = None
) -> Iterator[None]:
    """Store the weights of linear layers in ``dtype``; afterwards restore them.

    Autocast converts frozen weights again at each use, which costs more than it saves when a step
    of generation reads all weights for a few rows.

    Args:
        model: the model that holds the layers.
        dtype: the precision of the stored weights.
        excluded: a layer that keeps its weights.
    """
    originals = {
        layer: layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
        and layer.weight.is_floating_point()
        and layer.weight.dtype != dtype
        and layer is not excluded
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
    """Compute a layer in float32 within autocast; afterwards restore it.

    The layer that computes logits needs float32: bfloat16 has 8 significant bits, so that logits of
    different hypotheses are often equal, and the choice between them is arbitrary.
    """

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return type(layer).forward(layer, x.float())

    layer.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del layer.forward
