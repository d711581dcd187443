"""Attention within each sequence of a packed row, as an attention implementation of transformers.

Padding is the largest single cost of a training step where lengths vary: in batches of 8 with
sources of 130 tokens on average and at most 512, half of all positions are padding. Here a batch is
one row without padding, and attention is computed sequence by sequence. The mask of transformers is
not built, and no matrix is larger than its sequence's length squared. This is the implementation
for the CPU; for accelerators see ``harness.training.engines.fused_attention``.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from harness.errors import HarnessError
from harness.model.attention_switch import attention_implementation
from harness.training.engines.biased_attention import takes_bias
from harness.training.engines.dropout import Mask
from harness.training.engines.fused_attention import fused_attention, takes_rows
from harness.training.engines.rows import Packed, PackedRow

PACKED = "packed"
"""The implementation's name in transformers' registries."""


def kernels(device: torch.device, dtype: torch.dtype, width: int = 64) -> str:
    """Name the kernels of ``packed_attention`` on a device, for the report.

    Args:
        device: the device that holds the model.
        dtype: the precision of matrix products.
        width: width of the heads whose scores have a position bias.
    """
    if device.type == "cpu":
        return PACKED
    plain = "flash" if takes_rows(dtype, device) else "padded within"
    biased = "Triton" if takes_bias(dtype, device, width) else "padded within"
    if plain == biased:
        return f"{PACKED}: {plain}"
    return f"{PACKED}: {plain}; {biased} where there is a position bias"


def biased_width(model: nn.Module) -> int | None:
    """Return the width of the heads whose scores have a relative position bias, or None."""
    found = next(filter(_is_relative, model.modules()), None)
    return None if found is None else int(found.key_value_proj_dim)  # type: ignore[arg-type]


def _is_relative(module: nn.Module) -> bool:
    # All attention modules of T5 have it, those too that get the bias of the first.
    return hasattr(module, "relative_attention_num_buckets")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence of a row; the signature is that of transformers' registry.

    Args:
        module: an attention module. Its ``is_decoder`` and ``is_causal`` tell encoder
            self-attention, decoder self-attention and cross-attention apart.
        query: shape (1, heads, query tokens, width), for a whole row.
        key: shape (1, heads, key tokens, width).
        value: shape (1, heads, key tokens, width).
        attention_mask: not used, because there is no padding.
        packed: the lengths and offsets of the sequences in both rows.
        scaling: the factor of the scores; by default one over the square root of the width.
        dropout: the probability of dropping an attention probability.
        position_bias: added to the scores; shape (1, heads, longest query, longest key).

    Returns:
        (the output of shape (1, query tokens, heads, width), None in place of the probabilities)

    Raises:
        HarnessError: the model was called with a batch that is not packed.
    """
    if packed is None:
        raise HarnessError(
            "The model is patched for packed batches, and was called with a batch of another kind.",
            "Call the engine's unpatch(model) before generating or evaluating.",
        )
    causal = bool(module.is_causal)
    crossing = bool(module.is_decoder) and not causal
    queries = packed.target if module.is_decoder else packed.source
    keys = packed.source if crossing else queries
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # A backbone without relative positions in some attention may pass an empty bias.
    bias = None if position_bias is None or not position_bias.numel() else position_bias
    # squeeze(0) and not x[0]: the gradient of x[0] fills a tensor with zeros and copies a row in.
    query, key, value = query.squeeze(0), key.squeeze(0), value.squeeze(0)
    given = query, key, value, bias, queries, keys, scaling, dropout, causal
    if query.device.type == "cpu":
        result = _PerSequence.apply(*given)  # type: ignore[no-untyped-call]
    else:
        result = fused_attention(*given, relative=_is_relative(module) and queries is keys)
    return result[None], None


class _PerSequence(torch.autograd.Function):
    """Computes one sequence after another, all heads at once.

    Matrix products are in the precision of their inputs; scores, bias and softmax are in float32.
    For the backward pass it keeps the probabilities and the bits of the dropout mask. The
    probabilities of all sequences are one flat tensor, so that dropout is one operation for all.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        queries: PackedRow,
        keys: PackedRow,
        scaling: float,
        p: float,
        causal: bool,
    ) -> Tensor:
        if scaling != 1:
            query = query * scaling
        # Products of contiguous matrices take two thirds of the time.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        blocks = _Blocks(len(query), [*queries.lengths], [*keys.lengths])
        probabilities = query.new_empty(blocks.elements)
        added = None if bias is None else bias[0]
        if causal:
            added = queries.future[None] if added is None else added + queries.future
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
        ctx.blocks, ctx.scaling = blocks, scaling
        ctx.mask_scale = mask.scale if mask else None
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        bits = mask.bits if mask else None
        ctx.save_for_backward(query, key, value, probabilities, bits)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities, bits = ctx.saved_tensors
        mask = Mask(bits, ctx.mask_scale) if bits is not None else None
        blocks: _Blocks = ctx.blocks
        # In memory (tokens, heads, width), like the outputs of the projections.
        grad_query, grad_key, grad_value = (
            t.new_empty(t.shape[1], t.shape[0], t.shape[2]).transpose(0, 1)
            for t in (query, key, value)
        )
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
        grad_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            shape, dtype = ctx.bias
            grad_bias = torch.zeros(shape, dtype=dtype)
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
        if ctx.scaling != 1:
            grad_query.mul_(ctx.scaling)
        return grad_query, grad_key, grad_value, grad_bias, None, None, None, None, None


@dataclass(frozen=True)
class _Blocks:
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
        return [(self.heads, q, k) for q, k in zip(self.queries, self.keys, strict=True)]

    @cached_property
    def elements(self) -> int:
        return sum(map(prod, self.shapes))

    def of(self, flat: Tensor) -> list[Tensor]:
        """Return the blocks as views."""
        parts = torch.split(flat, [prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _no_mask(*_: Any, **__: Any) -> None:
    """Return no mask: a packed row holds no padding, and the attention itself is causal."""


def patch_attention(model: PreTrainedModel) -> ExitStack:
    """Let a model attend within the sequences of packed rows, until the context is closed."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
    undo = ExitStack()
    undo.enter_context(attention_implementation(model, PACKED))
    return undo
