"""Attention within packed rows on a CPU as one operator, for a compiler that traces a model.

``harness.training.engines.attention`` reads the lengths of sequences as numbers of Python. A
compiler would compile for these numbers, and again for each batch. This operator computes the same,
and reads the lengths from tensors when it runs. The compiler knows it by the shapes of its results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.training.engines.dropout import Mask
from harness.training.engines.per_sequence import Blocks, attend, attend_backward, like_projections
from harness.training.engines.rows import TracedRows, causal_mask

_library = torch.library.Library("harness", "FRAGMENT")
_library.define(
    "traced_attention(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor query_offsets,"
    " Tensor key_offsets, Tensor scores, float p, bool causal) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.nondeterministic_seeded,),
)
_library.define(
    "traced_attention_backward(Tensor gradient, Tensor query, Tensor key, Tensor value,"
    " Tensor? bias, Tensor query_offsets, Tensor key_offsets, Tensor probabilities, Tensor bits,"
    " float p, bool trained) -> (Tensor, Tensor, Tensor, Tensor)"
)


def traced_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    rows: TracedRows,
    scaling: float,
    p: float,
    causal: bool,
    decodes: bool,
) -> Tensor:
    """Attend within each sequence of a row.

    Args:
        query: shape (heads, query tokens, width).
        key: shape (heads, key tokens, width).
        value: shape (heads, key tokens, width).
        bias: added to the scores; shape (1, heads, longest query, longest key).
        rows: the offsets of the sequences.
        scaling: the factor of the scores.
        p: the probability of dropping an attention probability.
        causal: hide later keys.
        decodes: the queries belong to the decoder's row. So do the keys, if it is causal too.

    Returns:
        The output, of shape (query tokens, heads, width).
    """
    if not decodes:
        offsets = rows.source, rows.source, rows.source_scores
    elif causal:
        offsets = rows.target, rows.target, rows.target_scores
    else:
        offsets = rows.target, rows.source, rows.cross_scores
    query = (query * scaling if scaling != 1 else query).contiguous()
    key, value = key.contiguous(), value.contiguous()
    result: Tensor = torch.ops.harness.traced_attention(
        query, key, value, bias, *offsets, p, causal
    )[0]
    return result


def _blocks(heads: int, query_offsets: Tensor, key_offsets: Tensor) -> Blocks:
    return Blocks(heads, query_offsets.diff().tolist(), key_offsets.diff().tolist())


@torch.library.impl(_library, "traced_attention", "CPU")
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    scores: Tensor,
    p: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    blocks = _blocks(len(query), query_offsets, key_offsets)
    added = None if bias is None else bias[0]
    if causal:
        later = causal_mask(max(blocks.queries), query.device)
        added = later[None] if added is None else added + later
    result, probabilities, mask = attend(query, key, value, added, blocks, p)
    bits = mask.bits if mask else query.new_empty(0, dtype=torch.uint8)
    return result, probabilities, bits


@torch.library.impl(_library, "traced_attention", "Meta")
def _shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    scores: Tensor,
    p: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    elements = query.shape[0] * scores.shape[0]
    result = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
    bits = query.new_empty((elements + 7) // 8 if p else 0, dtype=torch.uint8)
    return result, query.new_empty(elements), bits


@torch.library.impl(_library, "traced_attention_backward", "CPU")
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    probabilities: Tensor,
    bits: Tensor,
    p: float,
    trained: bool,
) -> tuple[Tensor, ...]:
    grad_bias = torch.zeros_like(bias) if bias is not None and trained else None
    gradients = attend_backward(
        gradient,
        query,
        key,
        value,
        probabilities,
        Mask.of(bits, p) if p else None,
        _blocks(len(query), query_offsets, key_offsets),
        grad_bias,
    )
    return *gradients, query.new_empty(0) if grad_bias is None else grad_bias


@torch.library.impl(_library, "traced_attention_backward", "Meta")
def _gradient_shapes(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    trained = rest[-1]
    grad_bias = torch.zeros_like(bias) if bias is not None and trained else query.new_empty(0)
    return *map(like_projections, (query, key, value)), grad_bias


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, bias, query_offsets, key_offsets, _, p, _ = inputs
    _, probabilities, bits = output
    ctx.set_materialize_grads(False)
    ctx.p = p
    ctx.save_for_backward(query, key, value, bias, query_offsets, key_offsets, probabilities, bits)


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    trained = ctx.saved_tensors[3] is not None and ctx.needs_input_grad[3]
    *gradients, grad_bias = torch.ops.harness.traced_attention_backward(
        gradient, *ctx.saved_tensors, ctx.p, trained
    )
    return *gradients, grad_bias if trained else None, None, None, None, None, None


torch.library.register_autograd(
    "harness::traced_attention", _backward, setup_context=_keep, lib=_library
)
