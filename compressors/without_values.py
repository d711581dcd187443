"""Layers of PEFT whose code reads values, or uses sparse tensors: equal replacements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@contextmanager
def zero_weights(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Give layers on the meta device weights of zeros; afterwards put their own back.

    Zeros that nothing has written take no memory on Linux.
    """
    import torch
    from torch import nn

    originals = {layer: dict(layer.named_parameters(recurse=False)) for layer in layers.values()}
    for layer, parameters in originals.items():
        for name, own in parameters.items():
            zeros = torch.zeros(own.shape, dtype=own.dtype)
            setattr(layer, name, nn.Parameter(zeros, requires_grad=own.requires_grad))
    try:
        yield
    finally:
        for layer, parameters in originals.items():
            for name, own in parameters.items():
                setattr(layer, name, own.requires_grad_(False))


def move_adapters_to_meta(model: PreTrainedModel) -> None:
    """Move all layers of PEFT in a model to the meta device, after ``zero_weights``."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            own = module.get_base_layer()
            kept = dict(own.named_parameters(recurse=False))
            module.to("meta")
            for name, parameter in kept.items():
                setattr(own, name, parameter)


def replace_updates(model: PreTrainedModel) -> None:
    """Replace updates that cannot be computed everywhere by equal ones, or by equal shapes.

    SHiRA's is a sparse tensor in PEFT, which has no storage to measure; here its weights are put
    into a dense matrix. On a skeleton, WaveFT's indices have no values, so that a matrix of the
    same shape stands for its update. It has no matrix product, so that the count is right.
    """
    for module in model.modules():
        layer: Any = module
        place = type(module).__module__
        if not hasattr(module, "get_delta_weight"):
            continue
        if place.startswith("peft.tuners.shira"):
            layer.get_delta_weight = partial(_scattered_update, layer)
        elif place.startswith("peft.tuners.waveft") and next(module.parameters()).is_meta:
            layer.get_delta_weight = partial(_shape_of_update, layer)


def _scattered_update(layer: Any, adapter: str) -> Tensor:
    values = layer.shira_weight[adapter] * layer.scaling[adapter]
    if layer.shira_indices[adapter].device != values.device:
        layer.shira_indices[adapter] = layer.shira_indices[adapter].to(values.device)
    zeros = values.new_zeros(layer.out_features, layer.in_features)
    update: Tensor = zeros.index_put(tuple(layer.shira_indices[adapter].long()), values)
    return update


def _shape_of_update(layer: Any, adapter: str) -> Tensor:
    spectrum = layer.waveft_spectrum[adapter]
    update: Tensor = spectrum.sum() * spectrum.new_zeros(layer.out_features, layer.in_features)
    return update


def skip_checks(model: PreTrainedModel) -> None:
    """Let VB-LoRA's layers not look for infinities, for which a GPU would wait in each layer."""
    from peft.tuners.vblora import VBLoRALayer

    for module in model.modules():
        if isinstance(module, VBLoRALayer):
            layer: Any = module
            layer._get_lora_matrices = partial(_unchecked_matrices, layer)


def _unchecked_matrices(layer: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    training, layer.training = layer.training, False  # PEFT checks in training only.
    try:
        matrices: tuple[Tensor, Tensor] = type(layer)._get_lora_matrices(layer, *args, **kwargs)
        return matrices
    finally:
        layer.training = training
