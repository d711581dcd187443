"""Mixed precision: matrix products in a low precision, everything that accumulates in float32.

Autocast alone rounds every weight again in every step. A frozen weight never changes, so it is
rounded once and stored in the low precision, which saves the cast and half of its bytes. Float32
remains for the trained weights, their gradients and the optimizer's state, the embeddings' output,
the residual stream, the norms and the loss. In full fine-tuning no weight is frozen, and only
autocast applies.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the precision in which autocast would now compute a matrix product of a tensor."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


KeptWeights = dict[int, Tensor]
"""Identity of a weight -> its values in low precision."""


def frozen_weights_in(
    model: nn.Module, dtype: torch.dtype, kept: KeptWeights | None = None
) -> ExitStack:
    """Store the frozen weights and biases of linear modules in ``dtype``, until the context closes.

    The rounded values stay afterwards, because an adapter was trained with the rounded weights. A
    weight that is also an embedding keeps its precision, because its rows enter the residual
    stream. Weights are converted one by one, so that at most one of them is in memory twice.

    Args:
        model: the model.
        dtype: the precision of matrix products.
        kept: keeps the rounded weights, which then have the same addresses after each call; None
            frees them when the context closes.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    undo = ExitStack()
    for module in model.modules():
        if type(module) is not nn.Linear:
            continue
        for weight in module.parameters():
            if not weight.requires_grad and weight.dtype != dtype and id(weight) not in embeddings:
                undo.callback(_store, weight, weight.dtype)
                if kept is None:
                    _store(weight, dtype)
                elif id(weight) in kept:
                    weight.data = kept[id(weight)].copy_(weight.data)
                else:
                    _store(weight, dtype)
                    kept[id(weight)] = weight.data
    return undo


def _store(weight: Tensor, dtype: torch.dtype) -> None:
    weight.data = weight.data.to(dtype)
