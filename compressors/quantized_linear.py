"""Linear layers whose frozen weight is stored in 8 or 4 bits, in the formats of bitsandbytes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

from harness import HarnessError

_BLOCK = 64
"""Weights of a block in 4 bits, which have one scale."""
_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The quantiles of a normal distribution that the 16 codes stand for (Dettmers et al. 2023)."""


class _Product(torch.autograd.Function):
    # Keeps only the codes for the backward pass, which makes the weight from them once more.
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype, ctx.of = layer, dtype, x.dtype
        return F.linear(x.to(dtype), layer.dequantized_weight().to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight = ctx.layer.dequantized_weight().to(ctx.dtype)
        return (gradient.to(ctx.dtype) @ weight).to(ctx.of), None, None


class Codes(nn.Parameter):
    """Holds codes that stand for weights, and refuses to be trained."""

    method: str
    """Name of the compressor."""
    elements: int
    """Number of the weights."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze the codes, as they always are.

        Raises:
            HarnessError: they should be trained.
        """
        if requires_grad:
            raise HarnessError(
                f"Weights that {self.method} stores in few bits cannot be trained.",
                f"Train beside them: lora_ff+{self.method}",
            )
        return self


class QuantizedLinear(nn.Linear):
    """A linear layer with a frozen weight in few bits; the bias stays as it is.

    ``weight`` holds codes, which are no floating-point numbers, so that nothing takes them for the
    weight's values.

    Args:
        linear: the layer whose weight is stored.
    """

    method: ClassVar[str]
    """Name of the compressor."""
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        with torch.no_grad():
            codes, scales = self.quantized(linear.weight.detach().float())
        self.weight = Codes(codes, requires_grad=False)
        self.weight.method, self.weight.elements = self.method, linear.weight.numel()
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    @abstractmethod
    def quantized(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes and the scales of a weight."""

    @abstractmethod
    def dequantized_weight(self) -> Tensor:
        """Return the weight that the codes stand for, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer in the precision of the other products."""
        device = x.device.type
        # Shapes are computed on the meta device, which has no autocast.
        low = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else x.dtype
        result: Tensor = _Product.apply(x, self, dtype)  # type: ignore[no-untyped-call]
        return result if self.bias is None else result + self.bias.to(dtype)

    def plain(self) -> nn.Linear:
        """Return a plain layer that computes the same, in the precision of the scales."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=False)
        # The scales follow the model where it is converted to another precision; codes do not.
        weight = self.dequantized_weight().to(self.scales.dtype)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.bias = self.bias
        return linear


class Int8Linear(QuantizedLinear):
    """Stores a byte for each weight, and the largest magnitude of each output's weights."""

    method = "int8"

    def quantized(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes and the scales of a weight."""
        scales = weight.abs().amax(1)
        unit = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (weight * (127 / unit)[:, None]).round().to(torch.int8), scales

    def dequantized_weight(self) -> Tensor:
        """Return the weight that the codes stand for, in float32."""
        return self.weight.float().mul_((self.scales / 127)[:, None])


class Nf4Linear(QuantizedLinear):
    """Stores two weights in a byte, and the largest magnitude of each block of 64."""

    method = "nf4"

    def quantized(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes and the scales of a weight."""
        blocks = F.pad(weight.flatten(), (0, -weight.numel() % _BLOCK)).view(-1, _BLOCK)
        scales = blocks.abs().amax(1)
        unit = torch.where(scales > 0, scales, torch.ones_like(scales))
        levels = torch.tensor(_NF4, device=weight.device)
        codes = torch.bucketize(blocks / unit[:, None], (levels[1:] + levels[:-1]) / 2)
        pairs = codes.to(torch.uint8).view(-1, 2)
        return pairs[:, 0] * 16 + pairs[:, 1], scales

    def dequantized_weight(self) -> Tensor:
        """Return the weight that the codes stand for, in float32."""
        levels = torch.tensor(_NF4, device=self.weight.device)
        pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], -1)
        values = pairs.index_select(0, self.weight.int()).view(-1, _BLOCK)
        values = values.mul_(self.scales[:, None]).flatten()
        shape = self.out_features, self.in_features
        return values[: shape[0] * shape[1]].view(shape)
