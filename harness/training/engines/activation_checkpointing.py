"""Activations made again in the backward pass instead of being kept: less memory, more time.

A layer then keeps its input alone. The price is one more forward pass, about a quarter of the step
where weights are frozen and a third where they are trained.
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

Contexts = tuple[AbstractContextManager[object], AbstractContextManager[object]]


def checkpoint_activations(
    model: PreTrainedModel,
    backbone: Backbone,
    again: Callable[[], AbstractContextManager[object]],
) -> None:
    """Let each layer of both stacks compute its activations twice while training.

    Loss and gradients are the same, on a CPU to the bit: random numbers are drawn from the same
    state again.
    Evaluation and generation are as before.

    Args:
        model: composed; changed in place, its parameters and their names stay.
        backbone: says what a layer is.
        again: what the second pass is to run in; autocast comes back by itself.
    """

    def contexts() -> Contexts:
        return nullcontext(), again()

    def recomputed(layer: nn.Module) -> Callable[..., Any]:
        plain = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (layer.training and torch.is_grad_enabled()):
                return plain(*args, **kwargs)
            return checkpoint(plain, *args, use_reentrant=False, context_fn=contexts, **kwargs)

        return forward

    for stack in STACKS:
        for layer in backbone.layers(model, stack):
            layer.forward = recomputed(layer)
