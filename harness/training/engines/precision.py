"""Which precision where: products in a low one, everything that accumulates in float32.

Autocast alone rounds every weight anew in every step. A frozen weight never changes, so that it
is rounded once and stored so: the cast is gone, and half of its bytes. What stays in float32: the
trained weights, their gradients and the optimizer's state, the embeddings' output, the residual
stream, the norms and the loss. Under full fine-tuning no weight is frozen, and autocast is all.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn


def product_dtype(x: Tensor) -> torch.dtype:
    """Return what autocast would now compute a matrix product of this tensor in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def frozen_weights_in(model: nn.Module, dtype: torch.dtype) -> ExitStack:
    """Store the frozen weights and biases of linear modules in ``dtype``, until the context ends.

    The rounding stays: an adapter was trained beside the rounded weights and fits those. A weight
    that is also an embedding keeps its precision, because its rows enter the residual stream.
    Each weight is converted by itself, so that never more than one exists twice.
    """
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    undo = ExitStack()
    for module in model.modules():
        if type(module) is not nn.Linear:
            continue
        for held in module.parameters():
            if not held.requires_grad and held.dtype != dtype and id(held) not in looked_up:
                undo.callback(_store, held, held.dtype)
                _store(held, dtype)
    return undo


def _store(weight: Tensor, dtype: torch.dtype) -> None:
    weight.data = weight.data.to(dtype)
