"""The attention of accelerators: padded attention on the CPU, flash attention by its shapes."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.training.engines.attention import _PerSequence
from harness.training.engines.fused_attention import flash_within, fused_attention
from harness.training.engines.rows import PackedRow
from harness.training.resolved_run import choose_device

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)
HEADS, WIDTH = 2, 4
LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4)


def row(lengths: tuple[int, ...]) -> PackedRow:
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return PackedRow(lengths, torch.cat([torch.arange(n) for n in lengths]), offsets)


@given(LENGTHS, st.sampled_from(["encoder", "decoder", "cross"]), st.booleans())
def test_result_and_gradients_are_those_of_the_loop(
    lengths: list[tuple[int, int]], kind: str, biased: bool
) -> None:
    queries = row(tuple(n for n, _ in lengths))
    keys = row(tuple(n for _, n in lengths)) if kind == "cross" else queries
    torch.manual_seed(0)
    leaves = [torch.randn(HEADS, sum(r.lengths), WIDTH) for r in (queries, keys, keys)]
    if biased:
        leaves.append(torch.randn(1, HEADS, queries.longest, keys.longest))
    leaves = [leaf.requires_grad_() for leaf in leaves]
    query, key, value = leaves[:3]
    upstream = torch.randn(sum(queries.lengths), HEADS, WIDTH)
    results = []
    for attend in (_PerSequence.apply, fused_attention):
        bias = leaves[3] if biased else None
        result = attend(query, key, value, bias, queries, keys, 0.7, 0.0, kind == "decoder")
        results.append((result, *torch.autograd.grad(result, leaves, upstream)))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_layers_that_share_a_bias_share_a_mask() -> None:
    queries = row((3, 5))
    bias, other = torch.randn(2, 1, HEADS, 5, 5).unbind()
    first = queries.mask(bias, causal=True, dtype=torch.float32)
    assert queries.mask(bias, causal=True, dtype=torch.float32) is first
    # In between, as cross-attention to the same row asks.
    assert not queries.mask(None, causal=False, dtype=torch.float32).isneginf().all()
    assert queries.mask(bias, causal=True, dtype=torch.float32) is first
    assert queries.mask(other, causal=True, dtype=torch.float32) is not first


def test_a_shared_bias_gets_the_gradients_of_all_its_layers() -> None:
    queries = row((2, 7, 4))
    torch.manual_seed(0)
    bias = torch.randn(1, HEADS, 7, 7, requires_grad=True)
    states = torch.randn(HEADS, 13, WIDTH)
    gradients = []
    for attend in (_PerSequence.apply, fused_attention):
        x = states
        for _ in range(3):
            x = attend(x, x, x, bias, queries, queries, 1.0, 0.0, True).transpose(0, 1)
        gradients.append(torch.autograd.grad(x.square().sum(), bias)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=6))
def test_rows_are_padded_and_packed_again(lengths: list[int]) -> None:
    one = row(tuple(lengths))
    assert one.longest <= one.width < one.longest + 16
    assert one.width % 16 == 0
    x = torch.arange(1.0, 1 + 2 * sum(lengths)).view(-1, 2)
    made = one.padded(x, -x, 2 * x)
    for padded, whole in zip(made, (x, -x, 2 * x), strict=True):
        assert padded.shape == (len(lengths), one.width, 2)
        for sequence, tokens in zip(padded, whole.split(lengths), strict=True):
            assert torch.equal(sequence[: len(tokens)], tokens)
        assert torch.equal(one.packed(padded), whole)
    assert torch.equal(one.padded(x)[0], made[0])


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("width", [64, 20])
def test_flash_is_called_as_this_torch_has_it(width: int, p: float) -> None:
    """Check arguments, result and gradients on meta tensors."""
    queries, keys = row((3, 5)), row((9, 1))

    def of_shape(tokens: int) -> Tensor:
        return torch.empty(
            tokens, HEADS, width, dtype=torch.bfloat16, device="meta", requires_grad=True
        )

    query, key, value = of_shape(8), of_shape(10), of_shape(10)
    query_row, key_row = (
        PackedRow(r.lengths, r.positions.to("meta"), r.offsets.to("meta")) for r in (queries, keys)
    )
    result = flash_within(query, key, value, query_row, key_row, 1.0, p, False)
    assert result.shape == (8, HEADS, width)
    gradients = torch.autograd.grad(result, (query, key, value), torch.empty_like(result))
    assert [g.shape for g in gradients] == [t.shape for t in (query, key, value)]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("asked", ["cpu", CUDA])
def test_attention_with_a_bias_drops_a_tenth_of_the_probabilities(
    asked: str, trained: bool
) -> None:
    """With one-hot values every element of the result is one probability: dropped, or scaled."""
    device = choose_device(asked)
    lengths, heads, width = (64,) * 8, 8, 64
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    own = PackedRow(lengths, torch.cat([torch.arange(n) for n in lengths]).to(device), offsets)
    torch.manual_seed(0)
    zeros = torch.zeros(heads, sum(lengths), width, dtype=torch.bfloat16, device=device)
    ones = torch.eye(width, dtype=torch.bfloat16, device=device).repeat(len(lengths), 1)
    bias = torch.zeros(1, heads, 64, 64, dtype=torch.bfloat16, device=device)
    values = ones.expand(heads, -1, -1)
    query = zeros.clone().requires_grad_()
    bias.requires_grad_(trained)
    result = fused_attention(query, zeros, values, bias, own, own, 1.0, 0.1, False)
    # 262,144 draws: 0.004 are seven standard deviations; the sixteenths beside it are 0.025 away.
    assert float((result == 0).float().mean()) == pytest.approx(0.1, abs=0.004)
    kept = result[result != 0].float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 64 / 0.9), rtol=0.01, atol=0)


@pytest.mark.parametrize("longest", [64, 192, 320])
@pytest.mark.parametrize("asked", ["cpu", CUDA])
def test_gradients_with_a_mask_are_finite_and_correct_at_odd_multiples_of_64(
    asked: str, longest: int
) -> None:
    device = choose_device(asked)
    lengths, heads, width = (longest, 5, longest - 1), 4, 64
    torch.manual_seed(0)
    leaves = [torch.randn(heads, sum(lengths), width) for _ in range(3)]
    bias = torch.randn(1, heads, longest, longest)
    upstream = torch.randn(sum(lengths), heads, width)
    results = []
    for place, dtype in ((torch.device("cpu"), torch.float32), (device, torch.bfloat16)):
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=place)
        own = PackedRow(lengths, torch.cat([torch.arange(n) for n in lengths]).to(place), offsets)
        q, k, v = (leaf.to(place, dtype).detach().requires_grad_() for leaf in leaves)
        attend = _PerSequence.apply if dtype == torch.float32 else fused_attention
        result = attend(q, k, v, bias.to(place, dtype), own, own, width**-0.5, 0.0, False)
        grads = torch.autograd.grad(result, (q, k, v), upstream.to(place, dtype))
        results.append([t.float().cpu() for t in (result.detach(), *grads)])
    for expected, actual in zip(*results, strict=True):
        assert actual.isfinite().all()
        assert float((actual - expected).norm()) < 0.03 * float(expected.norm())
