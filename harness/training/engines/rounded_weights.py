"""Trained weights rounded to the products' precision, many at a time.

Autocast rounds each weight by a copy of its own, and converts its gradient back by another. On an
accelerator these are two launches per weight, more than any other operator of a step. Here one
copy rounds the weights of a layer (of several layers, where they are small), and one copy converts
their gradients back. The values are the same to the bit.

Query, key and value of a self-attention are one product of their stacked weights. There the
gradient of the input is summed within one product, in float32, instead of over three products that
are each rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel

from harness.api.backbone import Backbone, Role

_PLACES = "rounded_places"
"""Attribute of a linear module: parameter's name -> (group, index in the group)."""
_ELEMENTS = 2**24
"""Approximate size of a group; all its low-precision gradients are in memory for a moment."""


class _Rounded(torch.autograd.Function):
    # Saves no tensor: under activation checkpointing the second forward pass need not round the
    # weights at the same points as the first.
    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, stacks: list[list[int]], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.stacks, ctx.dtypes = stacks, [weight.dtype for weight in weights]
        remaining = iter(weights)
        low: list[Tensor] = []
        parts: list[Tensor] = []
        for rows in stacks:
            first = next(remaining)
            low.append(first.new_empty(sum(rows), *first.shape[1:], dtype=dtype))
            parts += torch.split(low[-1], rows)
            for _ in rows[1:]:
                next(remaining)
        torch._foreach_copy_(parts, weights)
        return tuple(low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        parts: list[Tensor | None] = []
        for gradient, rows in zip(gradients, ctx.stacks, strict=True):
            parts += [None] * len(rows) if gradient is None else torch.split(gradient, rows)
        full = [
            None if part is None else torch.empty_like(part, dtype=dtype)
            for part, dtype in zip(parts, ctx.dtypes, strict=True)
        ]
        low = [part for part in parts if part is not None]
        if low:
            torch._foreach_copy_([f for f in full if f is not None], low)
        return None, None, *full


@dataclass
class WeightGroup:
    """Weights that are rounded together.

    Attributes:
        dtype: the precision that the weights are rounded to.
        stacks: float32 weights on one device; the weights of a stack are one rounded matrix.
        products: the products that use a stack of several modules.
    """

    dtype: torch.dtype
    stacks: list[list[Tensor]] = field(default_factory=list)
    products: list[StackedProduct] = field(default_factory=list)
    _rounded: list[Tensor | None] = field(default_factory=list)

    @property
    def elements(self) -> int:
        """Number of elements of all weights."""
        return sum(weight.numel() for stack in self.stacks for weight in stack)

    def add(self, *stack: Tensor) -> int:
        """Add weights as one stack, concatenated along the first axis, and return its index."""
        self.stacks.append([*stack])
        return len(self.stacks) - 1

    def take(self, place: int) -> Tensor:
        """Return a rounded stack; a second call with the same index rounds all of them again."""
        if not self._rounded or self._rounded[place] is None:
            rows = [[len(weight) for weight in stack] for stack in self.stacks]
            weights = [weight for stack in self.stacks for weight in stack]
            rounded = _Rounded.apply(self.dtype, rows, *weights)  # type: ignore[no-untyped-call]
            self._rounded = list(rounded)
        taken = self._rounded[place]
        assert taken is not None
        self._rounded[place] = None
        return taken

    def forget(self) -> None:
        """Discard the rounded weights, because the weights have changed."""
        self._rounded = []
        for product in self.products:
            product.forget()


@dataclass
class StackedProduct:
    """One matrix product for several linear modules that are called with the same input.

    Attributes:
        group: rounds the weights.
        weight: index of the stacked weights in the group.
        bias: index of the stacked biases in the group, or None.
        rows: number of outputs of each module.
    """

    group: WeightGroup
    weight: int
    bias: int | None
    rows: list[int]
    _input: Tensor | None = None
    _results: list[Tensor | None] = field(default_factory=list)

    def take(self, number: int, x: Tensor) -> Tensor:
        """Return the output of module ``number``; the first call with an input computes all."""
        if self._input is not x or self._results[number] is None:
            weight = self.group.take(self.weight)
            bias = None if self.bias is None else self.group.take(self.bias)
            self._results = [*torch.split(F.linear(x, weight, bias), self.rows, -1)]
            self._input = x
        taken = self._results[number]
        assert taken is not None
        self._results[number] = None
        if all(result is None for result in self._results):
            self.forget()
        return taken

    def forget(self) -> None:
        """Discard the input and the outputs."""
        self._input, self._results = None, []


def rounded(linear: nn.Linear, name: str) -> Any:
    """Return a parameter of a linear module: under autocast rounded, otherwise unchanged."""
    places = vars(linear).get(_PLACES, {})
    if name not in places or not torch.is_autocast_enabled(linear.weight.device.type):
        return getattr(linear, name)
    group, place = places[name]
    return group.take(place)


def _forward(self: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, rounded(self, "weight"), rounded(self, "bias"))


def _stacked_forward(self: nn.Linear, x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return F.linear(x, self.weight, self.bias)
    product, number = vars(self)[_PLACES]["product"]
    result: Tensor = product.take(number, x)
    return result


def round_together(
    layers: Iterable[nn.Module],
    dtype: torch.dtype,
    same_input: Iterable[Sequence[nn.Module]] = (),
) -> tuple[list[WeightGroup], ExitStack]:
    """Let the linear modules of layers round their trained parameters in groups.

    Call it after ``patch_lora``: a module whose forward pass is replaced already keeps it, and
    calls ``rounded`` itself.

    Args:
        layers: the layers, in the order in which they are computed.
        dtype: the precision of matrix products.
        same_input: groups of modules of one layer that are called with the same input.

    Returns:
        (the groups, whose ``forget`` must be called before each forward pass; the context that
        undoes all changes)
    """
    groups: list[WeightGroup] = []
    undo = ExitStack()
    stackable = {
        id(modules[0]): modules for modules in same_input if _can_be_stacked(modules, dtype)
    }
    for layer in layers:
        if not groups or groups[-1].elements >= _ELEMENTS:
            groups.append(WeightGroup(dtype))
        for module in layer.modules():
            if id(module) in stackable:
                _stack(stackable[id(module)], groups[-1], undo)
        for module in layer.modules():
            if type(module) is nn.Linear and _PLACES not in vars(module):
                _round(module, groups[-1], undo)
    return groups, undo


def with_same_input(model: PreTrainedModel, backbone: Backbone) -> list[tuple[nn.Module, ...]]:
    """Return, for each attention, its modules that project the same states."""
    groups: tuple[tuple[Role, ...], ...] = (
        ("self_attn.q", "self_attn.k", "self_attn.v"),
        ("cross_attn.k", "cross_attn.v"),
    )
    return [
        modules
        for roles in groups
        for modules in zip(*(backbone.modules(model, r).values() for r in roles), strict=False)
    ]


def _round(module: nn.Linear, group: WeightGroup, undo: ExitStack) -> None:
    places = {
        name: (group, group.add(parameter))
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and parameter.dtype != group.dtype
    }
    if places:
        _patch(module, places, _forward, undo)


def _can_be_stacked(modules: Sequence[nn.Module], dtype: torch.dtype) -> bool:
    """Return whether all are plain linears with trained parameters and the same input width."""
    linears = [m for m in modules if type(m) is nn.Linear and "forward" not in vars(m)]
    parameters = [p for m in linears for p in m.parameters()]
    return (
        len(linears) == len(modules) > 1
        and all(p.requires_grad and p.dtype != dtype for p in parameters)
        and len({(m.in_features, m.bias is None, m.weight.device) for m in linears}) == 1
        and len({id(p) for p in parameters}) == len(parameters)
    )


def _stack(modules: Sequence[nn.Module], group: WeightGroup, undo: ExitStack) -> None:
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    if any(_PLACES in vars(module) for module in linears):
        return  # A layer that is used twice.
    biases = [module.bias for module in linears if module.bias is not None]
    product = StackedProduct(
        group,
        group.add(*(module.weight for module in linears)),
        group.add(*biases) if biases else None,
        [module.out_features for module in linears],
    )
    group.products.append(product)
    for number, module in enumerate(linears):
        _patch(module, {"product": (product, number)}, _stacked_forward, undo)


def _patch(
    module: nn.Linear, places: dict[str, Any], forward: Callable[..., Tensor], undo: ExitStack
) -> None:
    setattr(module, _PLACES, places)
    undo.callback(delattr, module, _PLACES)
    if "forward" not in vars(module):
        module.forward = MethodType(forward, module)  # type: ignore[method-assign]
        undo.callback(delattr, module, "forward")
