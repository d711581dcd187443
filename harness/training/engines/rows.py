"""Packed rows: sequences laid end to end, with the lengths and offsets that attention needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

_ALIGNED = 16
"""Fused kernels need the rows of a mask aligned to this many elements; others are copied first."""


@dataclass(frozen=True)
class PackedRow:
    """Sequences laid end to end: the input of one stack.

    The lengths are stored both on the CPU and on the device. Reading them back from the device
    would synchronize the stream.

    Attributes:
        lengths: tokens of each sequence.
        positions: position of each token in its sequence, from 0; shape (tokens,).
        offsets: index of each sequence's first token, and at the end the number of all tokens;
            int32, shape (sequences + 1,).
        bound: a bound on the lengths that is used in their place; 0 if there is none.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    offsets: Tensor
    bound: int = 0
    _masks: dict[tuple[bool, bool], tuple[Tensor | None, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _tables: list[tuple[Tensor, Tensor]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @property
    def longest(self) -> int:
        """Length of the longest sequence, or the bound."""
        return self.bound or max(self.lengths)

    @cached_property
    def future(self) -> Tensor:
        """The causal mask: minus infinity at later keys, else 0; shape (longest, longest)."""
        return causal_mask(self.longest, self.positions.device)

    @property
    def width(self) -> int:
        """Length that sequences are padded to, in tokens."""
        return -(-self.longest // _ALIGNED) * _ALIGNED

    @cached_property
    def slots(self) -> Tensor:
        """Index of each token after padding all sequences to ``width``; shape (tokens,)."""
        sequence = torch.repeat_interleave(self.offsets.diff(), output_size=sum(self.lengths))
        return sequence * self.width + self.positions

    @cached_property
    def origins(self) -> Tensor:
        """Index of the token at each padded position; shape (sequences * width,).

        Beyond the end of a sequence it is any token, since a mask hides those positions.
        """
        places = torch.arange(self.width, device=self.offsets.device)
        return (self.offsets[:-1, None] + places).clamp_(max=sum(self.lengths) - 1).flatten()

    def padded(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return tensors of one shape (tokens, ...) as (sequences, width, ...).

        Positions beyond the end of a sequence hold other tokens, which saves clearing them. They
        must be masked: their gradient is then zero, and is not propagated.
        """
        padded: tuple[Tensor, ...] = _Padded.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return padded

    def packed(self, x: Tensor) -> Tensor:
        """Undo ``padded``; the gradient beyond the end of a sequence is zero."""
        result: Tensor = _Packed.apply(x, self.slots)  # type: ignore[no-untyped-call]
        return result

    @cached_property
    def _several(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {1: (self.origins, self.slots)}

    def indices(self, count: int) -> tuple[Tensor, Tensor]:
        """Return ``origins`` and ``slots`` for ``count`` tensors that are concatenated."""
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
        """Return the mask that is added to the scores of padded queries and this row's keys.

        It is computed once for all layers of a stack, which share their bias.

        Args:
            bias: added to the scores; shape (1, heads, longest query, longest), or None.
            causal: hide later keys; the queries then belong to this row too.
            dtype: the dtype of the mask, the same in every call.
            queries: the row of the queries, if it is another one.

        Returns:
            Shape (sequences, heads or 1, the queries' width or 1, width), minus infinity at
            padding.
        """
        kind = causal, bias is not None
        if kind not in self._masks or self._masks[kind][0] is not bias:
            self._masks[kind] = bias, self._new_mask(bias, causal, dtype, queries or self)
        return self._masks[kind][1]

    def table(self, bias: Tensor, new_table: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a table made from the bias of a stack, once for all its layers."""
        if not self._tables or self._tables[0][0] is not bias:
            self._tables[:] = [(bias, new_table(bias))]
        return self._tables[0][1]

    def _new_mask(
        self, bias: Tensor | None, causal: bool, dtype: torch.dtype, queries: PackedRow
    ) -> Tensor:
        device = self.offsets.device
        missing = torch.arange(self.width, device=device) >= self.offsets.diff()[:, None]
        mask = torch.zeros(missing.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(missing, -torch.inf)[:, None, None]
        if causal:
            mask = mask + causal_mask(self.width, device).to(dtype)
        if bias is not None:
            beyond = (0, self.width - self.longest, 0, queries.width - queries.longest)
            mask = mask + F.pad(bias.to(dtype), beyond)
        return mask


class _Padded(torch.autograd.Function):
    """Pads all tensors by one copy, since several small kernels are bound by their launches."""

    @staticmethod
    def forward(ctx: Any, row: PackedRow, *tensors: Tensor) -> tuple[Tensor, ...]:
        origins, ctx.slots = row.indices(len(tensors))
        together = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        padded = together.index_select(0, origins)
        return padded.view(len(tensors), -1, row.width, *padded.shape[1:]).unbind()

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

    @cached_property
    def traced(self) -> TracedRows:
        """The rows without numbers of Python, for compiled layers."""
        source, target = self.source, self.target
        return TracedRows(
            source.offsets,
            target.offsets,
            _counter(source, source),
            _counter(target, target),
            _counter(target, source),
        )


class TracedRows(NamedTuple):
    """Both rows as tensors: code that is compiled for one batch then serves all.

    Attributes:
        source: the offsets of the encoder's row.
        target: the offsets of the decoder's row.
        source_scores: a tensor as long as the encoder's self-attention has scores, for one head.
        target_scores: the same for the decoder's self-attention.
        cross_scores: the same for the cross-attention.
    """

    source: Tensor
    target: Tensor
    source_scores: Tensor
    target_scores: Tensor
    cross_scores: Tensor


def _counter(queries: PackedRow, keys: PackedRow) -> Tensor:
    """Return a tensor that takes no memory, as long as all sequences together have scores."""
    count = sum(q * k for q, k in zip(queries.lengths, keys.lengths, strict=True))
    return queries.offsets.new_empty(1).expand(count)


def causal_mask(size: int, device: torch.device) -> Tensor:
    """Return the causal mask of a sequence: minus infinity at later keys, else 0."""
    return torch.full((size, size), -torch.inf, device=device).triu_(1)
