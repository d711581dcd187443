"""Attention over packed rows with T5's relative position bias, by Triton kernels on a GPU.

The kernels take the row as it is, without padding, and drop probabilities. For the backward pass
query, key, value and result are kept, with one float32 for each query and head. The seed of the
dropout is on the device, so that each replay of a CUDA graph draws another mask.

Triton comes with PyTorch's builds for CUDA. Where the kernels cannot be used,
``harness.training.engines.fused_attention`` pads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.errors import first_line
from harness.training.engines.biased_launches import attend, attend_backward
from harness.training.engines.rows import PackedRow

_TYPES = (torch.bfloat16, torch.float16, torch.float32)
_WIDEST = 128
"""Widest head that the kernels take."""

_library = torch.library.Library("harness", "FRAGMENT")
_ROW = "Tensor offsets, Tensor? seed, int longest, float scaling, float p, bool causal"
_library.define(
    f"biased_attention(Tensor query, Tensor key, Tensor value, Tensor table, {_ROW})"
    " -> (Tensor, Tensor)"
)
_library.define(
    "biased_attention_backward(Tensor gradient, Tensor query, Tensor key, Tensor value,"
    f" Tensor table, Tensor result, Tensor normaliser, {_ROW}, bool trained)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.impl("biased_attention", attend, "CompositeExplicitAutograd")
_library.impl("biased_attention_backward", attend_backward, "CompositeExplicitAutograd")


@torch.library.impl(_library, "biased_attention", "Meta")
def _shapes(query: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    tokens, heads, width = query.shape
    normaliser = query.new_empty(heads, tokens, dtype=torch.float32)
    return query.new_empty(tokens, heads, width), normaliser


@torch.library.impl(_library, "biased_attention_backward", "Meta")
def _gradient_shapes(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    trained = rest[-1]
    gradients = [x.new_empty(x.shape) for x in (query, key, value)]
    return *gradients, table.new_empty(table.shape if trained else 0)


def takes_bias(dtype: torch.dtype, device: torch.device, width: int) -> bool:
    """Return whether the kernels can be used for heads of a width."""
    return obstacle(dtype, device, width) is None


def obstacle(dtype: torch.dtype, device: torch.device, width: int) -> str | None:
    """Return why the kernels cannot be used, or None if they can.

    For each dtype, device and width the kernels are compiled and tried once.
    """
    if device.type != "cuda":
        return "the device is not an NVIDIA GPU"
    if dtype not in _TYPES or width > _WIDEST:
        return f"the heads are of {dtype} and {width} wide"
    return _failure(dtype, device, width)


@cache
def _failure(dtype: torch.dtype, device: torch.device, width: int) -> str | None:
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is not an NVIDIA GPU since Ampere"
    try:
        for causal in (False, True):
            _try(dtype, device, width, causal)
    except Exception as error:  # A missing compiler or driver raises errors of any type.
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _try(dtype: torch.dtype, device: torch.device, width: int, causal: bool) -> None:
    """Compare result and gradients on a row of two sequences with plain computations.

    Dropout is compiled in, with a probability that rounds to 0.

    Raises:
        RuntimeError: they differ.
    """
    lengths, heads, longest, scaling = (70, 30), 2, 128, width**-0.5
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), heads, width)] * 4 + [(heads, 2 * longest - 1)]
    *made, table = (torch.randn(*shape, generator=generator).to(device) for shape in shapes)
    upstream, *leaves = (x.to(dtype) for x in made)
    leaves = [x.requires_grad_() for x in (*leaves, table)]
    offsets = torch.tensor([0, 70, 100], dtype=torch.int32, device=device)
    seed = torch.zeros((), dtype=torch.int64, device=device)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        found = _Attention.apply(*leaves, offsets, seed, longest, scaling, 1e-9, causal)  # type: ignore[no-untyped-call]
        plain = _plain(leaves, lengths, scaling, causal)
        gradients = torch.autograd.grad(found, leaves, upstream)
        expected = torch.autograd.grad(plain, leaves, upstream.float())
    names = "result", "query", "key", "value", "bias"
    pairs = zip((found, *gradients), (plain, *expected), strict=True)
    for name, (one, other) in zip(names, pairs, strict=True):
        one, other = one.detach().float(), other.detach().float()  # noqa: PLW2901
        distance = float((one - other).norm() / other.norm())
        if not distance < (1e-3 if dtype == torch.float32 else 0.03):
            raise RuntimeError(f"{name} differs from a plain computation by {distance:.2g}")


def _plain(leaves: list[Tensor], lengths: tuple[int, ...], scaling: float, causal: bool) -> Tensor:
    """Attend to one sequence after another in float32."""
    *made, table = leaves
    middle, results = table.shape[1] // 2, []
    for q, k, v in zip(*(x.float().transpose(0, 1).split(lengths, 1) for x in made), strict=True):
        places = torch.arange(q.shape[1], device=q.device)
        distances = places - places[:, None]
        scores = q @ k.transpose(1, 2) * scaling + table[:, distances + middle]
        scores = scores.masked_fill((distances > 0) & causal, -torch.inf)
        results.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(results)


def distance_table(bias: Tensor) -> Tensor:
    """Return a relative position bias by distance.

    Args:
        bias: shape (1, heads, longest, longest); an element depends on key minus query only.

    Returns:
        Shape (heads, 2 * longest - 1), float32; the first entry is the distance 1 - longest.
    """
    before, after = bias[0, :, 1:, 0].flip(-1), bias[0, :, 0]
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
        query: shape (tokens, heads, width).
        key: shape (tokens, heads, width).
        value: shape (tokens, heads, width).
        bias: see ``distance_table``.
        row: the row of all three. Tokens behind its last sequence get zeros.
        scaling: the factor of the scores.
        p: the probability of dropping an attention probability, rounded to 1 / 65,536.
        causal: hide later keys.

    Returns:
        The output, of shape (tokens, heads, width).
    """
    table = row.table(bias, distance_table)
    seed = torch.empty((), dtype=torch.int64, device=query.device).random_() if p else None
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, table, row.offsets, seed, row.longest, scaling, p, causal
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
        seed: Tensor | None,
        *options: Any,
    ) -> Tensor:
        result: Tensor
        result, normaliser = torch.ops.harness.biased_attention(
            query, key, value, table, offsets, seed, *options
        )
        ctx.options = options
        ctx.save_for_backward(query, key, value, table, result, normaliser, offsets, seed)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        trained = ctx.needs_input_grad[3]
        *gradients, grad_table = torch.ops.harness.biased_attention_backward(
            gradient, *ctx.saved_tensors, *ctx.options, trained
        )
        return *gradients, grad_table if trained else None, *[None] * (2 + len(ctx.options))
