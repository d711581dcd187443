"""Activation checkpointing: the backward pass recomputes activations, which saves memory.

A layer then keeps only its input. The cost is one more forward pass: about a quarter of the step
where weights are frozen, and a third where they are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone

_MARK = "checkpoints_activations"
"""Attribute of a forward pass that checkpoints."""

Contexts = tuple[AbstractContextManager[object], AbstractContextManager[object]]


def checkpoint_activations(
    model: PreTrainedModel,
    backbone: Backbone,
    recomputation_context: Callable[[], AbstractContextManager[object]],
) -> None:
    """Checkpoint each layer of both stacks while it trains, if it is not checkpointed already.

    Loss and gradients stay the same, on a CPU to the bit, because random numbers are drawn from
    the same generator state again. Evaluation and generation do not change.

    Args:
        model: the composed model; changed in place. Its parameters and their names stay.
        backbone: finds the model's layers.
        recomputation_context: returns the context in which the second forward pass runs. Autocast
            is restored without it.
    """

    def contexts() -> Contexts:
        return nullcontext(), recomputation_context()

    def checkpointed(layer: nn.Module) -> Callable[..., Any]:
        plain = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (layer.training and torch.is_grad_enabled()):
                return plain(*args, **kwargs)
            return checkpoint(plain, *args, use_reentrant=False, context_fn=contexts, **kwargs)

        return forward

    for stack in STACKS:
        for layer in backbone.layers(model, stack):
            if not hasattr(layer.forward, _MARK):
                layer.forward = checkpointed(layer)
                setattr(layer.forward, _MARK, True)
