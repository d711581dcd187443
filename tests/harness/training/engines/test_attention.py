"""Attention on packed rows against each sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from harness.training.engines.attention import _PerSequence, kernels
from harness.training.engines.fused_attention import fused_attention
from harness.training.engines.rows import PackedRow

HEADS, WIDTH = 2, 4
Attend = Callable[..., Tensor]
WAYS = pytest.mark.parametrize(
    "attend", [_PerSequence.apply, fused_attention], ids=["loop", "padded"]
)


def row(*lengths: int) -> PackedRow:
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return PackedRow(lengths, torch.cat([torch.arange(n) for n in lengths]), offsets)


def tensors(queries: PackedRow, keys: PackedRow, with_bias: bool) -> list[Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(r.lengths), HEADS * WIDTH) for r in (queries, keys, keys))
    heads = [t.view(-1, HEADS, WIDTH).transpose(0, 1) for t in (q, k, v)]
    bias = [torch.randn(1, HEADS, queries.longest, keys.longest)] if with_bias else []
    return [t.detach().requires_grad_() for t in [*heads, *bias]]


@WAYS
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [
        (row(3, 1, 5), row(3, 1, 5), False),
        (row(3, 1, 5), row(3, 1, 5), True),
        (row(2, 6, 1), row(4, 1, 3), False),
    ],
)
def test_result_and_gradients_are_those_of_each_sequence_alone(
    attend: Attend, queries: PackedRow, keys: PackedRow, causal: bool, with_bias: bool
) -> None:
    leaves = tensors(queries, keys, with_bias)
    query, key, value = leaves[:3]
    bias = leaves[3] if with_bias else None
    alone = []
    of_keys = (keys.lengths, 1)
    for q, k, v in zip(
        query.split(queries.lengths, 1), key.split(*of_keys), value.split(*of_keys), strict=True
    ):
        lengths = (q.shape[1], k.shape[1])
        mask = torch.zeros(lengths) if bias is None else bias[0, :, : lengths[0], : lengths[1]]
        if causal:
            mask = mask.masked_fill(torch.ones(lengths).triu(1).bool(), -torch.inf)
        alone.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.7))
    expected = torch.cat(alone, 1).transpose(0, 1)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, leaves, upstream)
    actual = attend(query, key, value, bias, queries, keys, 0.7, 0.0, causal)
    torch.testing.assert_close(actual, expected)
    for gradient, expected_gradient in zip(
        torch.autograd.grad(actual, leaves, upstream), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient)


@WAYS
def test_dropout_falls_on_the_probabilities(attend: Attend) -> None:
    """With equal scores and values of 1, a result is the kept share over its expectation."""
    torch.manual_seed(0)
    queries = row(100, 300)
    zeros, ones = torch.zeros(HEADS, 400, WIDTH), torch.ones(HEADS, 400, WIDTH)
    result = attend(zeros, zeros, ones, None, queries, queries, 1.0, 0.2, False)
    assert float(result.mean()) == pytest.approx(1, abs=0.01)
    spread = [float(part.std()) for part in result.split(queries.lengths)]
    for measured, length in zip(spread, queries.lengths, strict=True):
        assert measured == pytest.approx((0.2 / 0.8 / length) ** 0.5, rel=0.15)


def test_forward_and_backward_pass_drop_the_same_probabilities() -> None:
    """Check that the gradient of the values uses the transpose of the probabilities."""
    queries = row(5, 7)
    query, key, value = tensors(queries, queries, False)

    def run() -> Tensor:
        torch.manual_seed(1)
        result: Tensor = _PerSequence.apply(  # type: ignore[no-untyped-call]
            query, key, value, None, queries, queries, 1.0, 0.5, False
        )
        return result

    upstream = torch.randn(12, HEADS, WIDTH)
    for leaf in (query, key, value):
        (gradient,) = torch.autograd.grad(run(), leaf, upstream)
        step = 1e-2 * torch.randn_like(leaf)
        with torch.no_grad():
            leaf.add_(step)
            above = (run() * upstream).sum()
            leaf.sub_(2 * step)
            below = (run() * upstream).sum()
            leaf.add_(step)
        torch.testing.assert_close(
            float((above - below) / 2), float((gradient * step).sum()), rtol=0.01, atol=1e-4
        )


def test_the_report_can_tell_the_kernels_apart() -> None:
    """On a CPU the name is the one that earlier reports have, so that they stay comparable."""
    assert kernels(torch.device("cpu"), torch.bfloat16) == "packed"
    assert kernels(torch.device("meta"), torch.bfloat16) == "packed: padded within"
