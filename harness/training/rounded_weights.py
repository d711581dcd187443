"""Trained weights rounded to the products' precision many at a time.

Autocast rounds each weight by a copy of its own, and its gradient back by another. On an
accelerator those are two launches a weight, more than any other operator of a step. Here the
weights of a layer (of all layers, where they are small) are rounded by one copy, and so are their
gradients. The values are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

_PLACES = "rounded_places"
"""Attribute of a linear module: parameter's name -> group and place in it."""
_ELEMENTS = 2**24
"""Of a group, about: its low-precision gradients exist together for a moment."""


class _Rounded(torch.autograd.Function):
    # Keeps no tensor, so that recomputed activations need not round at the same places.
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [weight.dtype for weight in weights]
        low = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(low, weights)
        return tuple(low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        full = [
            None if gradient is None else torch.empty_like(gradient, dtype=dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        there = [gradient for gradient in gradients if gradient is not None]
        if there:
            torch._foreach_copy_([f for f in full if f is not None], there)
        return None, *full


@dataclass
class WeightGroup:
    """Weights that are rounded together.

    Attributes:
        dtype: what they are rounded to.
        weights: in float32, on one device.
    """

    dtype: torch.dtype
    weights: list[nn.Parameter] = field(default_factory=list)
    _rounded: list[Tensor | None] = field(default_factory=list)

    @property
    def elements(self) -> int:
        """Elements of all weights."""
        return sum(weight.numel() for weight in self.weights)

    def take(self, place: int) -> Tensor:
        """Return a weight rounded; a second call rounds all of them anew."""
        if not self._rounded or self._rounded[place] is None:
            made = _Rounded.apply(self.dtype, *self.weights)  # type: ignore[no-untyped-call]
            self._rounded = list(made)
        taken = self._rounded[place]
        assert taken is not None
        self._rounded[place] = None
        return taken

    def forget(self) -> None:
        """Round anew next time: the weights have changed."""
        self._rounded = []


def rounded(linear: nn.Linear, name: str) -> Any:
    """Return a parameter of a linear module as its product needs it now."""
    places = vars(linear).get(_PLACES, {})
    if name not in places or not torch.is_autocast_enabled(linear.weight.device.type):
        return getattr(linear, name)
    group, place = places[name]
    return group.take(place)


def _forward(self: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, rounded(self, "weight"), rounded(self, "bias"))


def round_together(
    layers: Iterable[nn.Module], dtype: torch.dtype
) -> tuple[list[WeightGroup], ExitStack]:
    """Let the linear modules of layers round their trained parameters together.

    To be called after ``fused_lora``: a module with a forward pass of its own keeps it, and asks
    for ``rounded`` by itself.

    Args:
        layers: in the order in which they are computed.
        dtype: of matrix products.

    Returns:
        The groups, which must ``forget`` before each forward pass; and what undoes all.
    """
    groups: list[WeightGroup] = []
    undo = ExitStack()
    for layer in layers:
        if not groups or groups[-1].elements >= _ELEMENTS:
            groups.append(WeightGroup(dtype))
        for module in layer.modules():
            if type(module) is not nn.Linear or _PLACES in vars(module):
                continue
            places = {
                name: (groups[-1], _add(groups[-1], parameter))
                for name, parameter in module.named_parameters(recurse=False)
                if parameter.requires_grad and parameter.dtype != dtype
            }
            if places:
                setattr(module, _PLACES, places)
                undo.callback(delattr, module, _PLACES)
                if "forward" not in vars(module):
                    module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
                    undo.callback(delattr, module, "forward")
    return groups, undo


def _add(group: WeightGroup, parameter: nn.Parameter) -> int:
    group.weights.append(parameter)
    return len(group.weights) - 1
