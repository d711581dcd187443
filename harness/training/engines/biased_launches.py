"""Launches of the Triton kernels of attention with a relative position bias."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 16
"""Least width of a matrix product in Triton."""
_DRAWS = 1 << 16
"""Number of integers that dropout draws from."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    scaling: float,
    p: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Attend within each sequence of a row.

    Args:
        query: shape (tokens, heads, width).
        key: shape (tokens, heads, width).
        value: shape (tokens, heads, width).
        table: the bias by distance, float32, shape (heads, 2 * longest - 1).
        offsets: first token of each sequence, and the end of the last; int32.
        seed: seed of the dropout, int64, on the device; None if ``p`` is 0.
        longest: a bound on the lengths of the sequences.
        scaling: the factor of the scores.
        p: the probability of dropping an attention probability.
        causal: hide later keys.

    Returns:
        (the output of shape (tokens, heads, width), the logarithms of the sums of the exponentials
        of each query's scores, float32, shape (heads, tokens))
    """
    from harness.training.engines.biased_kernels import forward_kernel

    query, key, value = _rows(query), _rows(key), _rows(value)
    tokens, heads, width = query.shape
    result = query.new_empty(tokens, heads, width)
    normaliser = query.new_empty(heads, tokens, dtype=torch.float32)
    forward_kernel[_grid(longest, query, offsets)](
        query, key, value, table.contiguous(), offsets, offsets if seed is None else seed,
        result, normaliser, *_numbers(query, offsets, longest, scaling, p),
        *_strides(query, key, value), causal=causal, drops=seed is not None,
        **sizes(width, query.dtype),
    )  # fmt: skip
    return result, normaliser


def attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    result: Tensor,
    normaliser: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    scaling: float,
    p: float,
    causal: bool,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value and table; see ``attend`` for the arguments.

    Args:
        gradient: gradient of the output.
        result: the output.
        normaliser: the second result of ``attend``.
        trained: compute the gradient of the table; otherwise it is empty.
    """
    from harness.training.engines.biased_kernels import key_kernel, query_kernel

    query, key, value, gradient = _rows(query), _rows(key), _rows(value), _rows(gradient)
    table = table.contiguous()
    delta = torch.empty_like(normaliser)
    grad_query, grad_key, grad_value = (x.new_empty(x.shape) for x in (query, key, value))
    grad_table = torch.zeros_like(table) if trained else table.new_empty(0)
    grid, numbers = _grid(longest, query, offsets), _numbers(query, offsets, longest, scaling, p)
    given = query, key, value, table, offsets, offsets if seed is None else seed
    strides = _strides(query, key, value, gradient)
    options = {"causal": causal, "drops": seed is not None, **sizes(query.shape[2], query.dtype)}
    query_kernel[grid](
        *given, result, gradient, normaliser, delta, grad_query, grad_table if trained else table,
        *numbers, *strides, trained=trained, **options,
    )  # fmt: skip
    key_kernel[grid](
        *given, gradient, normaliser, delta, grad_key, grad_value, *numbers, *strides, **options
    )
    return grad_query, grad_key, grad_value, grad_table


def sizes(width: int, dtype: torch.dtype) -> dict[str, int | str]:
    """Return what kernels are compiled for: sizes of a head and of blocks, and precision.

    Blocks are as large as registers allow almost without spills. A product of float32 is three
    products of TF32, which are nearly as precise.
    """
    padded, wide = max(_LEAST, 1 << (width - 1).bit_length()), dtype == torch.float32
    return {
        "width": width,
        "padded": padded,
        "block": 32 if wide else 64,
        "step": 32,
        "precision": "tf32x3" if wide else "tf32",
        "num_warps": 8 if padded > 64 else 4,
        "num_stages": 1 if wide else 2,
    }


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _grid(longest: int, query: Tensor, offsets: Tensor) -> tuple[int, int, int]:
    """Return the numbers of programs; those behind the last sequence clear what is left."""
    block = sizes(query.shape[2], query.dtype)["block"]
    assert isinstance(block, int)
    return max(1, -(-longest // block)), query.shape[1], len(offsets)


def _numbers(
    query: Tensor, offsets: Tensor, longest: int, scaling: float, p: float
) -> tuple[float, ...]:
    """Return the numbers that all kernels take.

    Dropout keeps draws from a threshold on, and its factor is that of the rounded probability.
    """
    tokens, heads, _ = query.shape
    threshold = min(round(p * _DRAWS), _DRAWS - 1)
    factor = _DRAWS / (_DRAWS - threshold)
    return longest, heads, len(offsets) - 1, tokens, scaling, threshold, factor


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]
