"""Attention within each sequence of a packed row, as an attention implementation of transformers.

Padding is the largest single cost of a training step where lengths vary: in batches of 8 with
sources of 130 tokens on average and at most 512, half of all positions are padding. Here a batch is
one row without padding, and attention is computed sequence by sequence. The mask of transformers is
not built, and no matrix is larger than its sequence's length squared. This is the implementation
for the CPU; for accelerators see ``harness.training.engines.fused_attention``.
"""

from __future__ import annotations

from contextlib import ExitStack
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
from harness.training.engines.per_sequence import Blocks, attend, attend_backward
from harness.training.engines.rows import Packed, PackedRow, TracedRows
from harness.training.engines.traced_attention import traced_attention

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
    packed: Packed | TracedRows | None = None,
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
        packed: the lengths and offsets of the sequences in both rows; or their tensors only,
            while a compiler traces the model.
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
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # A backbone without relative positions in some attention may pass an empty bias.
    bias = None if position_bias is None or not position_bias.numel() else position_bias
    # squeeze(0) and not x[0]: the gradient of x[0] fills a tensor with zeros and copies a row in.
    query, key, value = query.squeeze(0), key.squeeze(0), value.squeeze(0)
    if isinstance(packed, TracedRows):
        decodes = bool(module.is_decoder)
        result = traced_attention(
            query, key, value, bias, packed, scaling, dropout, causal, decodes
        )
        return result[None], None
    queries = packed.target if module.is_decoder else packed.source
    keys = packed.source if crossing else queries
    given = query, key, value, bias, queries, keys, scaling, dropout, causal
    if query.device.type == "cpu":
        result = _PerSequence.apply(*given)  # type: ignore[no-untyped-call]
    else:
        result = fused_attention(*given, relative=_is_relative(module) and queries is keys)
    return result[None], None


class _PerSequence(torch.autograd.Function):
    """Attention of ``harness.training.engines.per_sequence``, with its gradients."""

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
        blocks = Blocks(len(query), [*queries.lengths], [*keys.lengths])
        added = None if bias is None else bias[0]
        if causal:
            added = queries.future[None] if added is None else added + queries.future
        result, probabilities, mask = attend(query, key, value, added, blocks, p)
        ctx.blocks, ctx.scaling = blocks, scaling
        ctx.mask_scale = mask.scale if mask else None
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        ctx.save_for_backward(query, key, value, probabilities, mask.bits if mask else None)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities, bits = ctx.saved_tensors
        mask = Mask(bits, ctx.mask_scale) if bits is not None else None
        grad_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            shape, dtype = ctx.bias
            grad_bias = torch.zeros(shape, dtype=dtype)
        grad_query, *gradients = attend_backward(
            gradient, query, key, value, probabilities, mask, ctx.blocks, grad_bias
        )
        if ctx.scaling != 1:
            grad_query.mul_(ctx.scaling)
        return grad_query, *gradients, grad_bias, None, None, None, None, None


def _no_mask(*_: Any, **__: Any) -> None:
    """Return no mask: a packed row holds no padding, and the attention itself is causal."""


def patch_attention(model: PreTrainedModel) -> ExitStack:
    """Let a model attend within the sequences of packed rows, until the context is closed."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
    undo = ExitStack()
    undo.enter_context(attention_implementation(model, PACKED))
    return undo
