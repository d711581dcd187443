"""Triton kernels of attention within the sequences of a packed row, with a relative position bias.

Flash attention (Dao et al. 2022): scores are computed block by block and never stored. The bias of
a score depends only on the distance of its key from its query, and is read from a table with an
entry for each distance. Probabilities are dropped by a counter-based generator, so that the
backward pass draws the same mask again. Programs beyond the end of a sequence return at once.

The module needs Triton, and is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:  # Triton's decorator and blocks have no types.
    Block = Any

_VARYING = ["longest", "heads", "sequences", "tokens", "threshold"]
"""Arguments that vary between batches: a kernel is compiled once for all their values."""
_UNALIGNED = ["table", "offsets", "seed"]
"""Small tensors, at any address."""
_compiled = triton.jit(do_not_specialize=_VARYING, do_not_specialize_on_alignment=_UNALIGNED)


@triton.jit
def _place(offsets, sequences):  # type: ignore[no-untyped-def]
    """Return the first token of this program's sequence, and its length."""
    start = tl.load(offsets + tl.program_id(2))
    return start, tl.load(offsets + tl.program_id(2) + 1) - start


@triton.jit
def _rows(  # type: ignore[no-untyped-def]
    pointer, start, rows, columns, head, stride, head_stride, end, width: tl.constexpr
):
    """Load rows of one head of a sequence; beyond the ends of both dimensions they are 0."""
    places = (start + rows)[:, None].to(tl.int64) * stride + head * head_stride + columns[None, :]
    inside = (rows[:, None] < end) & (columns[None, :] < width)
    return tl.load(pointer + places, mask=inside, other=0.0)


@triton.jit
def _store(  # type: ignore[no-untyped-def]
    pointer, block, start, rows, columns, head, heads, end, width: tl.constexpr
):
    """Store what ``_rows`` loads, in a contiguous tensor."""
    places = ((start + rows)[:, None].to(tl.int64) * heads + head) * width + columns[None, :]
    inside = (rows[:, None] < end) & (columns[None, :] < width)
    tl.store(pointer + places, block.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def _clear(  # type: ignore[no-untyped-def]
    pointer, offsets, sequences, tokens, columns, head, heads, width: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Set the rows of one head behind the last sequence to 0."""
    start = tl.load(offsets + sequences)
    zeros = tl.zeros([block, columns.shape[0]], tl.float32)
    for at in range(tl.program_id(0) * block, tokens - start, tl.num_programs(0) * block):
        rows = at + tl.arange(0, block)
        _store(pointer, zeros, start, rows, columns, head, heads, tokens - start, width)


@triton.jit
def _biased(  # type: ignore[no-untyped-def]
    products, table, queries, keys, end, longest, scale, causal: tl.constexpr
):
    """Return scores; minus infinity where a key is not visible.

    ``queries`` and ``keys`` are the positions of a block's rows and columns, or the reverse.
    """
    visible = (queries < end) & (keys < end)
    bias = tl.load(table + (keys - queries + longest - 1), mask=visible, other=0.0)
    if causal:
        visible = visible & (keys <= queries)
    return tl.where(visible, products * scale + bias, float("-inf"))


@triton.jit
def _two(word, threshold):  # type: ignore[no-untyped-def]
    """Return two bits: whether each half of a word reaches the threshold."""
    low, high = (word & 0xFFFF).to(tl.int32), (word >> 16).to(tl.int32)
    return (low >= threshold).to(tl.int32) | ((high >= threshold).to(tl.int32) << 1)


@triton.jit
def _kept(  # type: ignore[no-untyped-def]
    seed, threshold, first_query, first_key, head, queries: tl.constexpr, keys: tl.constexpr,
    transposed: tl.constexpr,
):  # fmt: skip
    """Return which probabilities of a block are kept, shape (queries, keys) or transposed.

    A call of the generator draws eight integers of 16 bits. It has seven rounds, as in flash
    attention. The eight are for those keys of 32 that one thread holds of a product, so that
    threads exchange nothing: of each eight keys, the same two neighbours.
    """
    zeros = tl.zeros([queries, keys // 8], tl.int32)
    rows = zeros + (first_query + tl.arange(0, queries))[:, None]
    groups = zeros + (first_key // 8 + tl.arange(0, keys // 8))[None, :]
    a, b, c, d = tl.philox(
        tl.load(seed), groups, rows, zeros + head, zeros + tl.program_id(2), n_rounds=7
    )
    bits = _two(a, threshold) | (_two(b, threshold) << 2)
    bits |= (_two(c, threshold) << 4) | (_two(d, threshold) << 6)
    key = tl.arange(0, keys)
    own = key // 8 % 4 * 2 + key % 2
    if transposed:
        bits = tl.reshape(tl.trans(bits), [keys // 32, 1, 4, 1, queries])
        bits = tl.broadcast_to(bits, [keys // 32, 4, 4, 2, queries])
        bits = tl.reshape(bits, [keys, queries]) >> own[:, None]
    else:
        bits = tl.reshape(bits, [queries, keys // 32, 1, 4, 1])
        bits = tl.broadcast_to(bits, [queries, keys // 32, 4, 4, 2])
        bits = tl.reshape(bits, [queries, keys]) >> own[None, :]
    return (bits & 1) != 0


@_compiled
def forward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, result, normaliser,
    longest, heads, sequences, tokens, scale, threshold, factor,
    q_stride, q_head, k_stride, k_head, v_stride, v_head,
    causal: tl.constexpr, drops: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr, step: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Attend: one program for a block of queries, a head and a sequence."""
    head, columns = tl.program_id(1), tl.arange(0, padded)
    if tl.program_id(2) == sequences:
        _clear(result, offsets, sequences, tokens, columns, head, heads, width, block)
        return
    start, end = _place(offsets, sequences)
    first = tl.program_id(0) * block
    if first >= end:
        return
    queries = first + tl.arange(0, block)
    table += head * (2 * longest - 1)
    own = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
    best = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    summed = tl.zeros([block, padded], tl.float32)
    for at in range(0, tl.minimum(end, first + block) if causal else end, step):
        keys = at + tl.arange(0, step)
        other = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
        products = tl.dot(own, tl.trans(other), input_precision=precision)
        scores = _biased(
            products, table, queries[:, None], keys[None, :], end, longest, scale, causal
        )
        highest = tl.maximum(best, tl.max(scores, 1))
        finite = tl.where(queries < end, highest, 0.0)  # Rows beyond the end see no key.
        weights = tl.exp(scores - finite[:, None])
        shrink = tl.exp(best - finite)
        total = total * shrink + tl.sum(weights, 1)
        if drops:
            kept = _kept(seed, threshold, first, at, head, block, step, False)
            weights = tl.where(kept, weights, 0.0)
        values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
        summed = summed * shrink[:, None]
        summed = tl.dot(weights.to(values.dtype), values, summed, input_precision=precision)
        best = highest
    total = tl.where(queries < end, total, 1.0)
    summed = summed * (factor / total)[:, None]
    _store(result, summed, start, queries, columns, head, heads, end, width)
    normaliser += head * tokens + start
    tl.store(normaliser + queries, best + tl.log(total), mask=queries < end)


@_compiled
def query_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, result, gradient, normaliser, delta, grad_q, grad_table,
    longest, heads, sequences, tokens, scale, threshold, factor,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, g_stride, g_head,
    causal: tl.constexpr, drops: tl.constexpr, trained: tl.constexpr, width: tl.constexpr,
    padded: tl.constexpr, block: tl.constexpr, step: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a block of queries, and add to that of the bias.

    Also stores the sums of products of results and gradients, which the keys' gradients need.
    """
    head, columns = tl.program_id(1), tl.arange(0, padded)
    if tl.program_id(2) == sequences:
        _clear(grad_q, offsets, sequences, tokens, columns, head, heads, width, block)
        return
    start, end = _place(offsets, sequences)
    first = tl.program_id(0) * block
    if first >= end:
        return
    queries = first + tl.arange(0, block)
    table += head * (2 * longest - 1)
    own = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
    g = _rows(gradient, start, queries, columns, head, g_stride, g_head, end, width)
    out = _rows(result, start, queries, columns, head, heads * width, width, end, width)
    d = tl.sum(out.to(tl.float32) * g.to(tl.float32), 1)
    tl.store(delta + head * tokens + start + queries, d, mask=queries < end)
    normaliser += head * tokens + start
    norm = tl.load(normaliser + queries, mask=queries < end, other=0.0)
    summed = tl.zeros([block, padded], tl.float32)
    for at in range(0, tl.minimum(end, first + block) if causal else end, step):
        keys = at + tl.arange(0, step)
        other = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
        products = tl.dot(own, tl.trans(other), input_precision=precision)
        scores = _biased(
            products, table, queries[:, None], keys[None, :], end, longest, scale, causal
        )
        probabilities = tl.exp(scores - norm[:, None])
        values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
        grad = tl.dot(g, tl.trans(values), input_precision=precision)
        if drops:
            kept = _kept(seed, threshold, first, at, head, block, step, False)
            grad = tl.where(kept, grad * factor, 0.0)
        grad = probabilities * (grad - d[:, None])
        summed = tl.dot(grad.to(other.dtype), other, summed, input_precision=precision)
        if trained:
            sums = grad_table + head * (2 * longest - 1)
            _add_diagonals(grad, sums, at - first, longest, block, step)
    _store(grad_q, summed * scale, start, queries, columns, head, heads, end, width)


@triton.jit
def _add_diagonals(  # type: ignore[no-untyped-def]
    grad, sums, distance, longest, block: tl.constexpr, step: tl.constexpr
):
    """Add the gradients of a block's scores to the sums of their distances.

    Each row is rotated by its number, so that a diagonal lies in one column, together with those
    that are a multiple of ``step`` farther.

    Args:
        grad: shape (block, step); zero where a key is not visible.
        sums: a sum for each distance.
        distance: distance of the first key from the first query.
        longest: the bound of the distances.
        block: number of queries.
        step: number of keys.
    """
    places = tl.arange(0, block)[:, None] + tl.arange(0, step)[None, :]
    rotated = tl.gather(grad, places % step, 1)
    distances = distance + tl.arange(0, step)
    for turn in tl.static_range(block // step + 1):
        diagonals = tl.sum(tl.where(places // step == turn, rotated, 0.0), 0)
        inside = (distances > -longest) & (distances < longest)
        tl.atomic_add(sums + longest - 1 + distances, diagonals, mask=inside, sem="relaxed")
        distances -= step


@_compiled
def key_kernel(  # type: ignore[no-untyped-def]
    q, k, v, table, offsets, seed, gradient, normaliser, delta, grad_k, grad_v,
    longest, heads, sequences, tokens, scale, threshold, factor,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, g_stride, g_head,
    causal: tl.constexpr, drops: tl.constexpr, width: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr, step: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of keys and values; scores are transposed."""
    head, columns = tl.program_id(1), tl.arange(0, padded)
    if tl.program_id(2) == sequences:
        _clear(grad_k, offsets, sequences, tokens, columns, head, heads, width, block)
        _clear(grad_v, offsets, sequences, tokens, columns, head, heads, width, block)
        return
    start, end = _place(offsets, sequences)
    first = tl.program_id(0) * block
    if first >= end:
        return
    keys = first + tl.arange(0, block)
    table += head * (2 * longest - 1)
    normaliser += head * tokens + start
    delta += head * tokens + start
    own = _rows(k, start, keys, columns, head, k_stride, k_head, end, width)
    values = _rows(v, start, keys, columns, head, v_stride, v_head, end, width)
    key_sum = tl.zeros([block, padded], tl.float32)
    value_sum = tl.zeros([block, padded], tl.float32)
    for at in range(first if causal else 0, end, step):
        queries = at + tl.arange(0, step)
        other = _rows(q, start, queries, columns, head, q_stride, q_head, end, width)
        g = _rows(gradient, start, queries, columns, head, g_stride, g_head, end, width)
        norm = tl.load(normaliser + queries, mask=queries < end, other=0.0)
        d = tl.load(delta + queries, mask=queries < end, other=0.0)
        products = tl.dot(own, tl.trans(other), input_precision=precision)
        scores = _biased(
            products, table, queries[None, :], keys[:, None], end, longest, scale, causal
        )
        probabilities = tl.exp(scores - norm[None, :])
        grad = tl.dot(values, tl.trans(g), input_precision=precision)
        weights = probabilities
        if drops:
            kept = _kept(seed, threshold, at, first, head, step, block, True)
            weights = tl.where(kept, weights, 0.0)
            grad = tl.where(kept, grad * factor, 0.0)
        value_sum = tl.dot(weights.to(g.dtype), g, value_sum, input_precision=precision)
        grad = probabilities * (grad - d[None, :])
        key_sum = tl.dot(grad.to(other.dtype), other, key_sum, input_precision=precision)
    _store(grad_k, key_sum * scale, start, keys, columns, head, heads, end, width)
    _store(grad_v, value_sum * factor, start, keys, columns, head, heads, end, width)
