"""Dropout on the CPU from 16 random bits per element, with masks stored as single bits.

PyTorch's CPU dropout draws one random number per element, at 60 ns each as measured. Here one
64-bit number of a small fast generator serves four elements, which costs 1 ns per element in total.
The backward pass keeps one bit per element instead of a byte or a float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16
_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Mask:
    """A dropout mask of a tensor on the CPU: a 1 for each kept element.

    Attributes:
        bits: uint8, eight elements to a byte.
        scale: the factor of kept elements, which preserves the expectation.
    """

    bits: Tensor
    scale: float

    @classmethod
    def draw(cls, x: Tensor, p: float) -> Mask:
        """Draw a mask for a tensor, seeded by torch's global generator.

        Args:
            x: a tensor on the CPU; only its number of elements matters.
            p: the probability of dropping an element, in [0, 1), rounded to a multiple of 2**-16.
        """
        bits: Tensor = torch.ops.harness.draw_bits(x, _levels_kept(p))
        return cls.of(bits, p)

    @classmethod
    def of(cls, bits: Tensor, p: float) -> Mask:
        """Return the mask of bits that were drawn with probability p."""
        return cls(bits, _LEVELS / _levels_kept(p))

    def apply(self, x: Tensor) -> Tensor:
        """Return a copy of a contiguous tensor with dropped elements zero and the rest scaled."""
        result: Tensor = torch.ops.harness.apply_bits(x, self.bits, self.scale)
        return result


def _levels_kept(p: float) -> int:
    return min(max(round((1 - p) * _LEVELS), 1), _LEVELS - 1)


# Operators of torch, with an implementation for meta tensors, so that a step can be traced by
# shapes alone. The tag keeps a compiler from drawing once for two masks, or twice for one.
_operators = torch.library.Library("harness", "DEF")
_operators.define(
    "draw_bits(Tensor x, int kept) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,)
)
_operators.define("apply_bits(Tensor x, Tensor bits, float scale) -> Tensor")


@torch.library.impl(_operators, "draw_bits", "CPU")
def _draw_bits(x: Tensor, kept: int) -> Tensor:
    seed = int(torch.empty((), dtype=torch.int64).random_())
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
    numbers = words.view(np.int16)[: x.numel()]
    return torch.from_numpy(np.packbits(numbers < kept - _LEVELS // 2))


@torch.library.impl(_operators, "draw_bits", "Meta")
def _bits_of_shape(x: Tensor, kept: int) -> Tensor:
    return x.new_empty(-(-x.numel() // 8), dtype=torch.uint8)


@torch.library.impl(_operators, "apply_bits", "CPU")
def _apply_bits(x: Tensor, bits: Tensor, scale: float) -> Tensor:
    # A bitwise AND of the bit patterns takes a fifth of the time of a multiplication by booleans.
    integer = _INTEGER_OF_SIZE[x.element_size()]
    flags = torch.from_numpy(np.unpackbits(bits.numpy(), count=x.numel()))
    pattern = flags.to(integer).neg_().view(x.shape)
    return pattern.bitwise_and_(x.view(integer)).view(x.dtype).mul_(scale)


@torch.library.impl(_operators, "apply_bits", "Meta")
def _result_of_shape(x: Tensor, bits: Tensor, scale: float) -> Tensor:
    return torch.empty_like(x)


@dataclass(frozen=True)
class DeviceMask:
    """A dropout mask on an accelerator, where random numbers are cheap and unpacking is costly.

    Attributes:
        bits: bool, of the tensor's shape; True for each kept element.
        scale: the factor of kept elements.
    """

    bits: Tensor
    scale: float

    def apply(self, x: Tensor) -> Tensor:
        """Return a copy of a tensor with dropped elements zero and the rest scaled."""
        # One kernel computes x * bits * scale.
        result: Tensor = torch.ops.aten.native_dropout_backward(x, self.bits, self.scale)
        return result


def drop(x: Tensor, p: float) -> tuple[Tensor, Mask | DeviceMask]:
    """Drop elements with probability p; return the result and the mask.

    The type of the mask depends on the device. On an accelerator one kernel computes both.
    """
    if x.device.type == "cpu":
        mask = Mask.draw(x, p)
        return mask.apply(x), mask
    return drop_on_device(x, p)


def drop_on_device(x: Tensor, p: float) -> tuple[Tensor, DeviceMask]:
    """Drop elements on an accelerator, seeded by torch's generator of the tensor's device."""
    dropped, bits = torch.native_dropout(x, p, True)
    return dropped, DeviceMask(bits, 1 / (1 - p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask = Mask.draw(x, p)
        ctx.scale = mask.scale
        ctx.save_for_backward(mask.bits)
        return mask.apply(x.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return Mask(bits, ctx.scale).apply(gradient.contiguous()), None


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop elements with probability p; the signature is that of ``torch.nn.functional.dropout``.

    ``inplace`` is ignored, since it only asks for less memory.
    """
    if not training or p == 0:
        return x
    result: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return result


class PackedMaskDropout(TorchFunctionMode):
    """Replaces ``torch.nn.functional.dropout`` on CPU tensors by ``dropout`` while it is active.

    Models call dropout both as a module and as a function, so that replacing modules would not be
    enough.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the one function, and call all others unchanged."""
        kwargs = kwargs or {}
        if func is F.dropout and _applies(*args, **kwargs):
            return dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _applies(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    return x.device.type == "cpu" and x.element_size() in _INTEGER_OF_SIZE and p < 1
