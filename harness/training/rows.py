"""Rows of sequences end to end: what the attention of a packed batch must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_ALIGNED = 16
"""Fused kernels read the rows of a mask in pieces of so many elements; others they copy first."""


@dataclass(frozen=True)
class Row:
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

    def padded(self, x: Tensor) -> Tensor:
        """Return a tensor of shape (tokens, ...) as (sequences, width, ...), zeros between."""
        flat = x.new_zeros(len(self.lengths) * self.width, *x.shape[1:])
        return flat.index_copy_(0, self.slots, x).view(-1, self.width, *x.shape[1:])

    def packed(self, x: Tensor) -> Tensor:
        """Undo ``padded``."""
        return x.flatten(0, 1).index_select(0, self.slots)

    def mask(
        self, bias: Tensor | None, causal: bool, dtype: torch.dtype, queries: Row | None = None
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
        self, bias: Tensor | None, causal: bool, dtype: torch.dtype, queries: Row
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


@dataclass(frozen=True)
class Packed:
    """The rows of both stacks; sequence i of one belongs to sequence i of the other."""

    source: Row
    target: Row


def _future(size: int, device: torch.device) -> Tensor:
    return torch.full((size, size), -torch.inf, device=device).triu_(1)
