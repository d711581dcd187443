"""T5's feed-forward, which keeps its widest tensor once for the backward pass.

The module of transformers keeps the result of the activation, the mask of dropout and the result of
dropout, each as wide as the hidden states. After ReLU the last of them tells the others: it is
positive exactly where both kept an element. They were a fifth of the memory of a LoRA step of
t5-large.

The module also casts the input of its last product to that weight's precision. Under autocast the
product casts it back, so that a trained (float32) weight costs two copies of the widest tensor of
the layer, and two more of its gradient. The values are the same to the bit without these casts.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense

from harness.training.engines.dropout import drop


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        result, ctx.scale = torch.relu(x), 1.0
        if p:
            result, mask = drop(result, p)
            ctx.scale = mask.scale
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        grad_x = torch.ops.aten.threshold_backward(gradient, result, 0)
        return grad_x if ctx.scale == 1 else grad_x.mul_(ctx.scale), None


def relu_dropout(x: Tensor, p: float) -> Tensor:
    """Apply ReLU, then drop elements with probability p; only the result is kept for backward.

    Args:
        x: a contiguous floating-point tensor of any shape.
        p: the probability of dropping an element, in [0, 1).

    Returns:
        The result, of the shape and dtype of ``x``.
    """
    result: Tensor = _ReluDropout.apply(x, p)  # type: ignore[no-untyped-call]
    return result


def _forward(self: T5DenseActDense | T5DenseGatedActDense, hidden_states: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(hidden_states.device.type):
        plain: Tensor = type(self).forward(self, hidden_states)
        return plain
    if isinstance(self, T5DenseGatedActDense):
        hidden_states = self.dropout(self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states))
    elif type(self.act) is nn.ReLU and type(self.dropout) is nn.Dropout and self.dropout.p < 1:
        p = self.dropout.p if self.dropout.training else 0.0
        hidden_states = relu_dropout(self.wi(hidden_states), p)
    else:
        hidden_states = self.dropout(self.act(self.wi(hidden_states)))
    result: Tensor = self.wo(hidden_states)
    return result


def patch_t5_feed_forwards(model: nn.Module) -> ExitStack:
    """Give T5's feed-forwards the forward pass of this module, until the context is closed."""
    undo = ExitStack()
    for module in model.modules():
        if type(module) in (T5DenseActDense, T5DenseGatedActDense):
            module.forward = MethodType(_forward, module)
            undo.callback(delattr, module, "forward")
    return undo
