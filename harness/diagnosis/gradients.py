"""Gradients by role, before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

import torch

from harness.api.backbone import STACKS, Backbone, Role, Stack
from harness.diagnosis.losses import Batches
from harness.diagnosis.record import RoleGradient

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def role_gradients(
    model: PreTrainedModel, backbone: Backbone, batches: Batches
) -> list[RoleGradient]:
    """Return the gradients of the mean loss of some examples, by stack and role.

    Args:
        model: the model, without dropout. Its gradients are empty again afterwards.
        backbone: finds the modules.
        batches: the examples.
    """
    weights = {
        place: [weight for _, weight in found] for place, found in role_weights(model, backbone)
    }
    trained = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    for found in weights.values():
        for weight in found:
            weight.requires_grad_(True)
    tokens = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    for batch in batches:
        # The mean of a batch is over its own tokens.
        share = int((batch["labels"] != -100).sum()) / tokens
        (model(**batch).loss * share).backward()
    records = []
    for (stack, role), found in weights.items():
        gradient = _norm([w.grad for w in found if w.grad is not None])
        count = sum(weight.numel() for weight in found)
        records.append(
            RoleGradient(
                stack=stack,
                role=role,
                weights=count,
                root_mean_square=gradient / count**0.5,
                relative=gradient / _norm(found),
            )
        )
    model.zero_grad(set_to_none=True)
    for parameter, requires_grad in zip(model.parameters(), trained, strict=True):
        parameter.requires_grad_(requires_grad)
    return records


def role_weights(
    model: PreTrainedModel, backbone: Backbone
) -> Iterator[tuple[tuple[Stack, Role], list[tuple[str, nn.Parameter]]]]:
    """Yield the matrices of each role that a stack has, with their qualified names."""
    layers: dict[Stack, set[nn.Module]] = {
        stack: {module for layer in backbone.layers(model, stack) for module in layer.modules()}
        for stack in STACKS
    }
    for stack in STACKS:
        for role in get_args(Role):
            modules = backbone.modules(model, role).items()
            found = [
                (f"{name}.weight", module.weight)
                for name, module in modules
                if module in layers[stack] and isinstance(module.weight, torch.nn.Parameter)
            ]
            if found:
                yield (stack, role), found


def _norm(tensors: list[Tensor] | list[nn.Parameter]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))
