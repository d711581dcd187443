"""Rows of sequences end to end: what the attention of a packed batch must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

_ALIGNED = 16
"""Fused kernels read the rows of a mask in pieces of so many elements; others they copy first."""


@dataclass(frozen=True)
class PackedRow:
    """Sequences laid end to end: the input of one stack.

    The lengths are known to the processor and to the device. Reading them back from the device
    would make the processor wait for all that the device has still to do.

    Attributes:
        lengths: of the sequences, in tokens.
        positions: of each token in its sequence, from 0; shape (tokens,).
        offsets: where each sequence begins, and at last where the row ends; int32, shape
            (sequences + 1,).
    """

    lengths: tuple[int, ...]
    positions: Tensor
    offsets: Tensor
    _masks: dict[tuple[bool, bool], tuple[Tensor | None, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def future(self) -> Tensor:
        """Minus infinity where a query would see a later key, else 0; (longest, longest)."""
        return _future(self.longest, self.positions.device)

    @property
    def width(self) -> int:
        """Length to which sequences are padded where they must be."""
        return -(-self.longest // _ALIGNED) * _ALIGNED

    @cached_property
    def slots(self) -> Tensor:
        """Where each token would lie if all sequences were padded to ``width``; (tokens,)."""
        sequence = torch.repeat_interleave(self.offsets.diff(), output_size=sum(self.lengths))
        return sequence * self.width + self.positions

    @cached_property
    def origins(self) -> Tensor:
        """Which token to lay at each place of the padded sequences; (sequences * width,).

        Behind the end of a sequence it is any token: what is there is hidden by a mask.
        """
        places = torch.arange(self.width, device=self.offsets.device)
        return (self.offsets[:-1, None] + places).clamp_(max=sum(self.lengths) - 1).flatten()

    def padded(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return tensors of one shape (tokens, ...) as (sequences, width, ...).

        Behind the end of a sequence there are other tokens, so that nothing need be cleared. That
        is right where those are masked: their gradient is zero, and is not requested.
        """
        made: tuple[Tensor, ...] = _Padded.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return made

    def packed(self, x: Tensor) -> Tensor:
        """Undo ``padded``; the gradient behind the end of a sequence is zero."""
        result: Tensor = _Packed.apply(x, self.slots)  # type: ignore[no-untyped-call]
        return result

    @cached_property
    def _several(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {1: (self.origins, self.slots)}

    def indices(self, count: int) -> tuple[Tensor, Tensor]:
        """Return ``origins`` and ``slots`` of several tensors that lie one behind the other."""
        if count not in self._several:
            device = self.offsets.device
            number = torch.arange(count, device=device)[:, None]
            origins = number * sum(self.lengths) + self.origins
            slots = number * len(self.origins) + self.slots
            self._several[count] = origins.flatten(), slots.flatten()
        return self._several[count]

    def mask(
        self,
        bias: Tensor | None,
        causal: bool,
        dtype: torch.dtype,
        queries: PackedRow | None = None,
    ) -> Tensor:
        """Return what is added to the scores of padded queries and the keys of this row.

        Made once for all layers of a stack, which share their bias.

        Args:
            bias: shape (1, heads, longest query, longest).
            causal: hide later keys; the queries are of this row too.
            dtype: of the result, the same in every call.
            queries: the row of the queries, if it is another one.

        Returns:
            Shape (sequences, heads or 1, the queries' width or 1, width), minus infinity at what
            is not there.
        """
        kind = causal, bias is not None
        if kind not in self._masks or self._masks[kind][0] is not bias:
            self._masks[kind] = bias, self._new_mask(bias, causal, dtype, queries or self)
        return self._masks[kind][1]

    def _new_mask(
        self, bias: Tensor | None, causal: bool, dtype: torch.dtype, queries: PackedRow
    ) -> Tensor:
        device = self.offsets.device
        missing = torch.arange(self.width, device=device) >= self.offsets.diff()[:, None]
        mask = torch.zeros(missing.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(missing, -torch.inf)[:, None, None]
        if causal:
            mask = mask + _future(self.width, device).to(dtype)
        if bias is not None:
            beyond = (0, self.width - self.longest, 0, queries.width - queries.longest)
            mask = mask + F.pad(bias.to(dtype), beyond)
        return mask


class _Padded(torch.autograd.Function):
    """One copy for all tensors: several small kernels would take longer to launch than to run."""

    @staticmethod
    def forward(ctx: Any, row: PackedRow, *tensors: Tensor) -> tuple[Tensor, ...]:
        origins, ctx.slots = row.indices(len(tensors))
        together = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        made = together.index_select(0, origins)
        return made.view(len(tensors), -1, row.width, *made.shape[1:]).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat = [gradient.flatten(0, 1) for gradient in gradients]
        together = torch.cat(flat) if len(flat) > 1 else flat[0]
        return None, *together.index_select(0, ctx.slots).chunk(len(flat))


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor) -> Tensor:
        ctx.slots, ctx.shape = slots, x.shape
        return x.flatten(0, 1).index_select(0, slots)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = gradient.new_zeros(ctx.shape)
        whole.flatten(0, 1).index_copy_(0, ctx.slots, gradient)
        return whole, None


@dataclass(frozen=True)
class Packed:
    """The rows of both stacks; sequence i of one belongs to sequence i of the other."""

    source: PackedRow
    target: PackedRow


def _future(size: int, device: torch.device) -> Tensor:
    return torch.full((size, size), -torch.inf, device=device).triu_(1)
