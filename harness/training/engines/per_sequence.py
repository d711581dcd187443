"""Attention of a packed row on a CPU: one sequence after another, all heads at once.

Matrix products are in the precision of their inputs; scores, bias and softmax are in float32. The
backward pass needs the probabilities and the bits of the dropout mask. The probabilities of all
sequences are one flat tensor, so that dropout is one operation for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from harness.training.engines.dropout import Mask


@dataclass(frozen=True)
class Blocks:
    """A view of a flat tensor as one block of shape (heads, queries, keys) for each sequence.

    Attributes:
        heads: number of attention heads.
        queries: number of queries of each sequence.
        keys: number of keys of each sequence.
    """

    heads: int
    queries: list[int]
    keys: list[int]

    @cached_property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Shape of each block."""
        return [(self.heads, q, k) for q, k in zip(self.queries, self.keys, strict=True)]

    @cached_property
    def elements(self) -> int:
        """Number of elements of all blocks."""
        return sum(map(prod, self.shapes))

    def of(self, flat: Tensor) -> list[Tensor]:
        """Return the blocks as views."""
        parts = torch.split(flat, [prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def attend(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, blocks: Blocks, p: float
) -> tuple[Tensor, Tensor, Mask | None]:
    """Attend within each sequence.

    Args:
        query: shape (heads, query tokens, width), contiguous and scaled.
        key: shape (heads, key tokens, width), contiguous.
        value: shape (heads, key tokens, width), contiguous.
        added: added to the scores; shape (heads or 1, longest query, longest key), or None.
        blocks: the lengths of the sequences.
        p: the probability of dropping an attention probability.

    Returns:
        (the output of shape (query tokens, heads, width), the flat probabilities, their mask)
    """
    probabilities = query.new_empty(blocks.elements)
    for q, k, block in zip(
        torch.split(query, blocks.queries, 1),
        torch.split(key.transpose(1, 2), blocks.keys, 2),
        blocks.of(probabilities),
        strict=True,
    ):
        scores = torch.bmm(q, k)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if added is not None:
            scores += added[:, : scores.shape[1], : scores.shape[2]]
        if scores.dtype == block.dtype:
            torch.softmax(scores, -1, out=block)
        else:
            block.copy_(scores.softmax(-1))
    mask = Mask.draw(probabilities, p) if p else None
    result = query.new_empty(query.shape[1], len(query), value.shape[-1])
    for block, v, part in zip(
        blocks.of(mask.apply(probabilities) if mask else probabilities),
        torch.split(value, blocks.keys, 1),
        torch.split(result.transpose(0, 1), blocks.queries, 1),
        strict=True,
    ):
        part.copy_(torch.bmm(block, v))
    return result, probabilities, mask


def attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    probabilities: Tensor,
    mask: Mask | None,
    blocks: Blocks,
    grad_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value; see ``attend`` for the arguments.

    Args:
        gradient: gradient of the output.
        query: as for ``attend``.
        key: as for ``attend``.
        value: as for ``attend``.
        probabilities: from ``attend``.
        mask: from ``attend``.
        blocks: as for ``attend``.
        grad_bias: receives the gradient of the scores, summed over sequences, if it is not None;
            shape (1, heads, longest query, longest key).
    """
    # In memory (tokens, heads, width), like the outputs of the projections.
    grad_query, grad_key, grad_value = map(like_projections, (query, key, value))
    grad_probabilities = torch.empty_like(probabilities)
    dropped = mask.apply(probabilities) if mask else probabilities
    for g, v, block, grad, grad_v in zip(
        torch.split(gradient.transpose(0, 1), blocks.queries, 1),
        torch.split(value.transpose(1, 2), blocks.keys, 2),
        blocks.of(dropped),
        blocks.of(grad_probabilities),
        torch.split(grad_value, blocks.keys, 1),
        strict=True,
    ):
        torch.bmm(g, v, out=grad)
        grad_v.copy_(torch.bmm(block.transpose(1, 2), g))
    if mask:
        grad_probabilities = mask.apply(grad_probabilities)
    for q, k, block, grad, grad_q, grad_k in zip(
        torch.split(query, blocks.queries, 1),
        torch.split(key, blocks.keys, 1),
        blocks.of(probabilities),
        blocks.of(grad_probabilities),
        torch.split(grad_query, blocks.queries, 1),
        torch.split(grad_key, blocks.keys, 1),
        strict=True,
    ):
        grad_scores = torch.ops.aten._softmax_backward_data(grad, block, -1, block.dtype)
        if grad_bias is not None:
            grad_bias[0, :, : grad.shape[1], : grad.shape[2]] += grad_scores
        grad_q.copy_(torch.bmm(grad_scores, k))
        grad_k.copy_(torch.bmm(grad_scores.transpose(1, 2), q))
    return grad_query, grad_key, grad_value


def like_projections(x: Tensor) -> Tensor:
    """Return an empty tensor of the shape of x, (heads, tokens, width), with tokens outermost."""
    return x.new_empty(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)
