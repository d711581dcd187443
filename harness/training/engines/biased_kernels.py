"""Triton kernels of attention within the sequences of a packed row, with a relative bias.

Flash attention (Dao et al. 2022): scores are computed block by block and never stored. The bias of
a score depends on the distance of its key from its query only; it is read from a table with an
entry for each distance. Probabilities are dropped by a counter-based generator: the backward pass
draws the same mask again. Programs beyond the end of their sequence return at once.

The module needs Triton, and is imported where it is used.
"""

from __future__ import annotations

import triton
import triton.language as tl

_SIZES = ["longest", "heads"]
"""Arguments that vary between batches: kernels are compiled once for all their values."""


@triton.jit
def _scores(q, k, table, queries, keys, end, longest, scale, causal: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return scores with bias, shape (queries, keys); minus infinity where a key is not visible."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    visible = (queries[:, None] < end) & (keys[None, :] < end)
    distance = keys[None, :] - queries[:, None] + longest - 1
    scores += tl.load(table + distance, mask=visible, other=0.0)
    if causal:
        visible = visible & (keys[None, :] <= queries[:, None])
    return tl.where(visible, scores, float("-inf"))


@triton.jit
def _kept(seed, place, queries, keys, longest, p):  # type: ignore[no-untyped-def]
    """Return 0 for a dropped probability, and the factor of the others."""
    counter = (place * longest + queries[:, None]) * longest + keys[None, :]
    return tl.where(tl.rand(seed, counter) >= p, 1.0 / (1.0 - p), 0.0)


@triton.jit
def _rows(pointer, start, rows, columns, head, stride, head_stride, end, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load some rows of one head of a sequence; rows and columns beyond their ends are 0."""
    places = (start + rows)[:, None].to(tl.int64) * stride + head * head_stride + columns[None, :]
    return tl.load(
        pointer + places, mask=(rows[:, None] < end) & (columns[None, :] < width), other=0.0
    )


@triton.jit(do_not_specialize=_SIZES)
def forward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, result, normaliser,
    longest, heads, scale, p,
    q_stride, q_head, k_stride, k_head, v_stride, v_head,
    causal: tl.constexpr, drops: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Attend: one program for a block of queries, a head and a sequence."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(offsets + sequence)
    end = tl.load(offsets + sequence + 1) - start
    first = tl.program_id(0) * block
    if first < end:
        queries, columns = first + tl.arange(0, block), tl.arange(0, padded)
        table += head * (2 * longest - 1)
        own = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
        best = tl.full([block], float("-inf"), tl.float32)
        total = tl.zeros([block], tl.float32)
        summed = tl.zeros([block, padded], tl.float32)
        last = tl.minimum(end, first + block) if causal else end
        for at in range(0, last, block):
            keys = at + tl.arange(0, block)
            other = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
            scores = _scores(own, other, table, queries, keys, end, longest, scale, causal)
            highest = tl.maximum(best, tl.max(scores, 1))
            # A row beyond the end sees no key.
            finite = tl.where(highest == float("-inf"), 0.0, highest)
            weights = tl.exp(scores - finite[:, None])
            shrink = tl.exp(best - finite)
            total = total * shrink + tl.sum(weights, 1)
            if drops:
                weights *= _kept(tl.load(seed), sequence * heads + head, queries, keys, longest, p)
            values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
            summed = summed * shrink[:, None]
            summed += tl.dot(weights.to(values.dtype), values, input_precision="ieee")
            best = highest
        inside = queries < end
        total = tl.where(inside, total, 1.0)
        summed = summed / total[:, None]
        places = ((start + queries)[:, None].to(tl.int64) * heads + head) * width + columns[None, :]
        kept = inside[:, None] & (columns[None, :] < width)
        tl.store(result + places, summed.to(result.dtype.element_ty), mask=kept)
        tl.store(normaliser + (start + queries) * heads + head, best + tl.log(total), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def delta_kernel(  # type: ignore[no-untyped-def]
    result, gradient, delta, offsets, longest, heads, g_stride, g_head,
    width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Sum the products of results and their gradients over the width."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(offsets + sequence)
    end = tl.load(offsets + sequence + 1) - start
    queries, columns = tl.program_id(0) * block + tl.arange(0, block), tl.arange(0, padded)
    own = _rows(result, start, queries, columns, head, heads * width, width, end, width)
    g = _rows(gradient, start, queries, columns, head, g_stride, g_head, end, width)
    sums = tl.sum(own.to(tl.float32) * g.to(tl.float32), 1)
    tl.store(delta + (start + queries) * heads + head, sums, mask=queries < end)


@triton.jit(do_not_specialize=_SIZES)
def query_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, gradient, normaliser, delta, grad_q,
    longest, heads, scale, p,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, g_stride, g_head,
    causal: tl.constexpr, drops: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a block of queries."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(offsets + sequence)
    end = tl.load(offsets + sequence + 1) - start
    first = tl.program_id(0) * block
    if first < end:
        queries, columns = first + tl.arange(0, block), tl.arange(0, padded)
        table += head * (2 * longest - 1)
        inside = queries < end
        own = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
        g = _rows(gradient, start, queries, columns, head, g_stride, g_head, end, width)
        scalars = (start + queries) * heads + head
        norm = tl.load(normaliser + scalars, mask=inside, other=0.0)
        d = tl.load(delta + scalars, mask=inside, other=0.0)
        summed = tl.zeros([block, padded], tl.float32)
        last = tl.minimum(end, first + block) if causal else end
        for at in range(0, last, block):
            keys = at + tl.arange(0, block)
            other = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
            values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
            scores = _scores(own, other, table, queries, keys, end, longest, scale, causal)
            probabilities = tl.exp(scores - norm[:, None])
            grad = tl.dot(g, tl.trans(values), input_precision="ieee")
            if drops:
                grad *= _kept(tl.load(seed), sequence * heads + head, queries, keys, longest, p)
            grad = probabilities * (grad - d[:, None])
            summed += tl.dot(grad.to(other.dtype), other, input_precision="ieee")
        places = ((start + queries)[:, None].to(tl.int64) * heads + head) * width + columns[None, :]
        kept = inside[:, None] & (columns[None, :] < width)
        tl.store(grad_q + places, (summed * scale).to(grad_q.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=_SIZES)
def key_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, gradient, normaliser, delta, grad_k, grad_v, grad_table,
    longest, heads, scale, p,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, g_stride, g_head,
    causal: tl.constexpr, drops: tl.constexpr, trains: tl.constexpr, width: tl.constexpr,
    padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of keys and values, and add to that of the bias."""
    head, sequence = tl.program_id(1), tl.program_id(2)
    start = tl.load(offsets + sequence)
    end = tl.load(offsets + sequence + 1) - start
    first = tl.program_id(0) * block
    if first < end:
        keys, columns = first + tl.arange(0, block), tl.arange(0, padded)
        table += head * (2 * longest - 1)
        grad_table += head * (2 * longest - 1)
        other = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
        values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
        key_sum = tl.zeros([block, padded], tl.float32)
        value_sum = tl.zeros([block, padded], tl.float32)
        for at in range(first if causal else 0, end, block):
            queries = at + tl.arange(0, block)
            inside = queries < end
            own = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
            g = _rows(gradient, start, queries, columns, head, g_stride, g_head, end, width)
            scalars = (start + queries) * heads + head
            norm = tl.load(normaliser + scalars, mask=inside, other=0.0)
            d = tl.load(delta + scalars, mask=inside, other=0.0)
            scores = _scores(own, other, table, queries, keys, end, longest, scale, causal)
            probabilities = tl.exp(scores - norm[:, None])
            grad = tl.dot(g, tl.trans(values), input_precision="ieee")
            weights = probabilities
            if drops:
                kept = _kept(tl.load(seed), sequence * heads + head, queries, keys, longest, p)
                weights = probabilities * kept
                grad *= kept
            value_sum += tl.dot(tl.trans(weights).to(g.dtype), g, input_precision="ieee")
            grad = probabilities * (grad - d[:, None])
            key_sum += tl.dot(tl.trans(grad).to(own.dtype), own, input_precision="ieee")
            if trains:
                distance = keys[None, :] - queries[:, None] + longest - 1
                visible = scores > float("-inf")
                tl.atomic_add(grad_table + distance, grad, mask=visible, sem="relaxed")
        places = ((start + keys)[:, None].to(tl.int64) * heads + head) * width + columns[None, :]
        kept_places = (keys < end)[:, None] & (columns[None, :] < width)
        tl.store(grad_k + places, (key_sum * scale).to(grad_k.dtype.element_ty), mask=kept_places)
        tl.store(grad_v + places, value_sum.to(grad_v.dtype.element_ty), mask=kept_places)
