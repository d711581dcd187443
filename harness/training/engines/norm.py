"""T5's norm (RMSNorm), which keeps only its input and one number per row for the backward pass.

The module of transformers keeps about three tensors of the input's size, and under autocast each
of the following matrix products makes its own low-precision copy of the result. Here the input is
kept once (it is the residual stream, which is in memory anyway), and the result is in the precision
that the products need. On an accelerator it is a single kernel that keeps as little: there a step
of a large model is bound by launches, and T5-large has 122 norms of about 17 launches each.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812
from transformers.models.t5.modeling_t5 import T5LayerNorm

from harness.training.engines.precision import product_dtype


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = (norm.square_().div_(x.shape[-1]).add_(epsilon)).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        result: Tensor = (x * inverse).mul_(weight).to(dtype)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, inverse = ctx.saved_tensors
        gradient = gradient.to(x.dtype)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (gradient * x).mul_(inverse).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            # With u = gradient * weight and n = x * inverse: inverse * (u - n * mean(u * n)).
            grad_x = gradient * weight
            projection = (grad_x * x).mean(-1, keepdim=True).mul_(inverse.square())
            grad_x.addcmul_(x, projection, value=-1).mul_(inverse)
        return grad_x, grad_weight, None, None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Scale rows to a root mean square of 1, then by the weight (Zhang and Sennrich 2019).

    Args:
        x: shape (..., width), float32 or float64.
        weight: shape (width,), of the same dtype.
        epsilon: added to the mean square.
        dtype: the dtype of the result; all arithmetic is in the dtype of ``x``.

    Returns:
        The scaled rows, of the shape of ``x``.
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, weight.shape, weight, epsilon).to(dtype)
    result: Tensor = _RmsNorm.apply(x, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return result


def _forward(self: T5LayerNorm, hidden_states: Tensor) -> Tensor:
    weight: Tensor = self.weight
    if hidden_states.dtype != weight.dtype:
        if hidden_states.dtype != torch.float32:
            plain: Tensor = type(self).forward(self, hidden_states)
            return plain
        weight = weight.float()  # A gathered shard, in the precision of the products.
    dtype = product_dtype(hidden_states)
    return rms_norm(hidden_states, weight, self.variance_epsilon, dtype)


def patch_t5_norms(model: nn.Module) -> ExitStack:
    """Give T5's norms the forward pass of this module, until the context is closed."""
    undo = ExitStack()
    for module in model.modules():
        if isinstance(module, T5LayerNorm):
            module.forward = MethodType(_forward, module)
            undo.callback(delattr, module, "forward")
    return undo
