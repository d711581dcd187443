"""Attention over packed rows with T5's relative position bias, by Triton kernels on a GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.training.engines.rows import PackedRow

_BLOCK = 64
"""Queries and keys of a block: two blocks of scores fit into the registers of four warps."""
_SMALL_BLOCK = 32
"""The same in float32, whose rows take twice the shared memory."""
_LAUNCH = {"num_warps": 4, "num_stages": 2}
_WIDEST = 128
"""Widest head that the kernels take."""
_LEAST = 16
"""Least width of a matrix product in Triton."""


def takes_bias(dtype: torch.dtype, device: torch.device, width: int) -> bool:
    """Return whether the kernels can be used."""
    return (
        dtype in (torch.bfloat16, torch.float16, torch.float32)
        and width <= _WIDEST
        and why_not(device) is None
    )


@cache
def why_not(device: torch.device) -> str | None:
    """Return why the kernels cannot be used on a device, or None if they can; tries them once."""
    if device.type != "cuda" or torch.version.cuda is None:
        return "the device is not an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than Ampere"
    try:
        _try(device)
    except Exception as error:  # A missing compiler or driver raises errors of any type.
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _try(device: torch.device) -> None:
    """Run all kernels on a row of two sequences, and compare with a plain computation.

    Raises:
        RuntimeError: the results differ.
    """
    offsets = torch.tensor([0, 70, 100], dtype=torch.int32, device=device)
    row = PackedRow((70, 30), torch.empty(0, device=device), offsets)
    generator = torch.Generator(device).manual_seed(0)
    made = torch.randn(3, 100, 2, 64, generator=generator, device=device, dtype=torch.bfloat16)
    q, k, v = (x.requires_grad_() for x in made.unbind())
    bias = torch.zeros(1, 2, 70, 70, device=device, requires_grad=True)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        found = attention_with_bias(q, k, v, bias, row, 0.125, 0.0, False)
        found.float().square().sum().backward()
        scores = q[:70, 0].float() @ k[:70, 0].float().T * 0.125
        expected = torch.softmax(scores, -1) @ v[:70, 0].float()
    distance = float((found[:70, 0].float() - expected).norm() / expected.norm())
    if not distance < 0.02:
        raise RuntimeError(f"the kernels differ from a plain computation by {distance:.2g}")


def distance_table(bias: Tensor) -> Tensor:
    """Return a relative position bias by distance.

    Args:
        bias: shape (1, heads, longest, longest); an element depends on key minus query only.

    Returns:
        Shape (heads, 2 * longest - 1), float32; the first entry is the distance 1 - longest.
    """
    before, after = bias[0, :, :, 0].flip(-1), bias[0, :, 0, 1:]
    return torch.cat([before, after], -1).float()


def attention_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    row: PackedRow,
    scaling: float,
    p: float,
    causal: bool,
) -> Tensor:
    """Attend within each sequence of a row.

    Args:
        query: shape (tokens, heads, width), like key and value.
        key: see ``query``.
        value: see ``query``.
        bias: see ``distance_table``.
        row: the row of all three; its sequences cover all tokens.
        scaling: the factor of the scores.
        p: the probability of dropping an attention probability.
        causal: hide later keys.

    Returns:
        The output, shape (tokens, heads, width).
    """
    table = row.table(bias, distance_table)
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, table, row.offsets, row.longest, scaling, p, causal
    )
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        table: Tensor,
        offsets: Tensor,
        longest: int,
        scaling: float,
        p: float,
        causal: bool,
    ) -> Tensor:
        from harness.training.engines.biased_kernels import forward_kernel

        query, key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (query, key, value))
        table = table.contiguous()
        # A seed on the device, so that a CUDA graph draws another mask in each replay.
        seed = torch.empty((), dtype=torch.int64, device=query.device).random_() if p else offsets
        tokens, heads, width = query.shape
        result = query.new_empty(tokens, heads, width)
        normaliser = query.new_empty(tokens, heads, dtype=torch.float32)
        ctx.constants = longest, heads, scaling, p
        ctx.sizes = sizes_of(width, query.dtype)
        ctx.grid = -(-longest // ctx.sizes["block"]), heads, len(offsets) - 1
        ctx.options = {"causal": causal, "drops": p > 0, **ctx.sizes, **_LAUNCH}
        forward_kernel[ctx.grid](
            query, key, value, table, offsets, seed, result, normaliser,
            *ctx.constants, *_strides(query, key, value), **ctx.options,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, table, offsets, seed, result, normaliser)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from harness.training.engines.biased_kernels import delta_kernel, key_kernel, query_kernel

        query, key, value, table, offsets, seed, result, normaliser = ctx.saved_tensors
        longest, heads, *_ = ctx.constants
        gradient = gradient if gradient.stride(2) == 1 else gradient.contiguous()
        delta = torch.empty_like(normaliser)
        delta_kernel[ctx.grid](
            result, gradient, delta, offsets, longest, heads, *_strides(gradient), **ctx.sizes
        )
        grad_query, grad_key, grad_value = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
        )
        trains = ctx.needs_input_grad[3]
        grad_table = torch.zeros_like(table) if trains else table
        given = query, key, value, table, offsets, seed, gradient, normaliser, delta
        strides = _strides(query, key, value, gradient)
        query_kernel[ctx.grid](*given, grad_query, *ctx.constants, *strides, **ctx.options)
        key_kernel[ctx.grid](
            *given, grad_key, grad_value, grad_table, *ctx.constants, *strides,
            trains=trains, **ctx.options,
        )  # fmt: skip
        grads = grad_query, grad_key, grad_value, grad_table if trains else None
        return (*grads, None, None, None, None, None)


def sizes_of(width: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the sizes that kernels are compiled for: of a head, its power of two, and a block."""
    columns = max(_LEAST, 1 << (width - 1).bit_length())
    block = _SMALL_BLOCK if dtype == torch.float32 else _BLOCK
    return {"width": width, "padded": columns, "block": block}


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]
