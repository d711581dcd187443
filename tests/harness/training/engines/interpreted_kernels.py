"""Tests in a process of their own: the kernels of biased attention in Triton's interpreter.

It is called with TRITON_INTERPRET=1, which counts when Triton is imported. The interpreter computes
on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.training.engines import biased_attention, biased_launches, fused_attention
from harness.training.engines.biased_attention import _Attention, _plain, _try
from harness.training.engines.fused_attention import padded_within
from harness.training.engines.rows import PackedRow

HEADS, SCALE, LONGEST = 2, 0.3, 128


@pytest.fixture(autouse=True, scope="module")
def _memory_is_filled() -> Iterator[None]:
    """Fill new tensors with NaN, so that what a kernel leaves out is found."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def offsets_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32)


def plain(
    leaves: Sequence[Tensor], lengths: Sequence[int], causal: bool, kept: Tensor | None
) -> Tensor:
    """Attend to one sequence after another in float64; rows behind the last are zeros."""
    q, k, v, table = (x.double() for x in leaves)
    middle, start, results = table.shape[1] // 2, 0, []
    for n in lengths:
        distances = torch.arange(n) - torch.arange(n)[:, None]
        a, b, c = (x[start : start + n].transpose(0, 1) for x in (q, k, v))
        scores = a @ b.transpose(1, 2) * SCALE + table[:, distances + middle]
        if causal:
            scores = scores.masked_fill(distances > 0, -torch.inf)
        weights = scores.softmax(-1)
        if kept is not None:
            weights = weights * kept[:, start : start + n, :n]
        results.append((weights @ c).transpose(0, 1))
        start += n
    return torch.cat([*results, torch.zeros_like(q[start:])])


def mask_of(lengths: Sequence[int], seed: Tensor, p: float, longest: int = LONGEST) -> Tensor:
    """Return the factors of the probabilities, shape (heads, tokens, LONGEST).

    With equal scores and one-hot values, each element of the result is a probability.
    """
    zeros, values = torch.zeros(2, sum(lengths), HEADS, LONGEST).unbind()
    values[torch.arange(sum(lengths)), :, torch.cat([torch.arange(n) for n in lengths])] = 1
    table = torch.zeros(HEADS, 2 * longest - 1)
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        zeros, zeros, values, table, offsets_of(lengths), seed, longest, 1.0, p, False
    )
    of_token = torch.cat([torch.full((n,), n) for n in lengths])
    return (result * of_token[:, None, None]).transpose(0, 1)


@pytest.mark.slow
@settings(
    derandomize=True,
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],  # To shrink an example would take minutes.
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=3).filter(any),
    filler=st.integers(0, 100),
    bound=st.sampled_from([0, 0, 30, LONGEST - 70]),
    width=st.sampled_from([8, 16, 20, 64]),
    causal=st.booleans(),
    p=st.sampled_from([0.0, 0.2]),
    block=st.sampled_from([32, 64]),
)
def test_result_and_gradients_are_those_of_a_plain_computation(
    lengths: list[int], filler: int, bound: int, width: int, causal: bool, p: float, block: int
) -> None:
    """Blocks are of 32 queries in float32 and of 64 else; here both are in float32."""
    torch.manual_seed(0)
    longest, real = max(lengths) + bound, sum(lengths)
    shape = real + filler, HEADS, width
    leaves = [torch.randn(*shape) for _ in range(3)] + [torch.randn(HEADS, 2 * longest - 1)]
    upstream = torch.randn(*shape)
    for x in (*leaves[:3], upstream):
        x[real:] = torch.nan  # What is in rows behind the last sequence must not matter.
    leaves = [x.requires_grad_() for x in leaves]
    seed = torch.tensor(2**40 + 7) if p else None
    kept = None if seed is None else mask_of(lengths, seed, p)
    expected = plain(leaves, lengths, causal, kept)
    wanted = torch.autograd.grad(expected[:real], leaves, upstream[:real].double())
    sizes = biased_launches.sizes(width, torch.float32) | {"block": block}
    with mock.patch.object(biased_launches, "sizes", return_value=sizes):
        found = _Attention.apply(  # type: ignore[no-untyped-call]
            *leaves, offsets_of(lengths), seed, longest, SCALE, p, causal
        )
        gradients = torch.autograd.grad(found, leaves, upstream)
    assert torch.equal(found[real:], torch.zeros(filler, *shape[1:]))
    names = "result", "query", "key", "value", "bias"
    for name, one, other in zip(names, (found, *gradients), (expected, *wanted), strict=True):
        assert torch.allclose(one, other.float(), rtol=1e-4, atol=1e-4), name


@pytest.mark.slow
def test_the_requested_share_is_dropped_independently_of_each_other() -> None:
    lengths, p = (128, 128), 0.1
    kept = mask_of(lengths, torch.tensor(3), p)
    factor = 65_536 / (65_536 - 6_554)
    assert kept.unique().tolist() == [0, pytest.approx(factor, rel=1e-5)]
    dropped = (kept == 0).view(HEADS, 2, 128, 128)
    # 65,536 draws: 0.006 are five standard deviations.
    assert float(dropped.float().mean()) == pytest.approx(p, abs=0.006)
    pairs = {
        "heads": (dropped[0], dropped[1]),
        "sequences": (dropped[:, 0], dropped[:, 1]),
        "queries": (dropped[:, :, 1:], dropped[:, :, :-1]),
        **{f"keys {n} apart": (dropped[..., n:], dropped[..., :-n]) for n in (1, 2, 8, 16, 32)},
        "seeds": (dropped, (mask_of(lengths, torch.tensor(4), p) == 0).view_as(dropped)),
    }
    for name, (one, other) in pairs.items():
        # The standard deviation is at most that of 32,768 draws: 0.00055.
        assert float((one & other).float().mean()) == pytest.approx(p * p, abs=0.003), name


def test_a_mask_depends_on_its_seed_and_not_on_the_bound() -> None:
    lengths, seed = (40, 9), torch.tensor(5)
    mask = mask_of(lengths, seed, 0.5)
    assert torch.equal(mask_of(lengths, seed, 0.5), mask)
    assert torch.equal(mask_of(lengths, seed, 0.5, longest=40), mask)


def test_the_bias_of_a_stack_gets_the_gradients_of_its_layers() -> None:
    """Check the whole way from a bias as T5 computes it, in two layers, beside padded attention."""
    lengths, longest, width = (33, 70), 96, 16
    positions = torch.cat([torch.arange(n) for n in lengths])
    torch.manual_seed(0)
    weights = torch.randn(HEADS, 2 * longest - 1, requires_grad=True)
    states = torch.randn(HEADS, sum(lengths), width)
    places = torch.arange(longest)
    results = []
    for takes in (False, True):
        row = PackedRow(lengths, positions, offsets_of(lengths), longest)
        bias = weights[None, :, places - places[:, None] + longest - 1]
        with mock.patch.object(fused_attention, "takes_bias", return_value=takes):
            x = states
            for _ in range(2):
                x = fused_attention.fused_attention(
                    x, x, x, bias, row, row, SCALE, 0.0, True, relative=True
                ).transpose(0, 1)
        results.append((x, *torch.autograd.grad(x.square().sum(), weights)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_bias_that_is_not_relative_is_padded() -> None:
    row = PackedRow((3, 5), torch.tensor([0, 1, 2, 0, 1, 2, 3, 4]), offsets_of((3, 5)))
    x, bias = torch.randn(HEADS, 8, 16), torch.randn(1, HEADS, 5, 5)
    with mock.patch.object(fused_attention, "takes_bias", return_value=True):
        found = fused_attention.fused_attention(x, x, x, bias, row, row, SCALE, 0.0, False)
    rows = x.transpose(0, 1)
    assert torch.equal(found, padded_within(rows, rows, rows, bias, row, row, SCALE, 0.0, False))


def test_the_trial_passes() -> None:
    """Compare with a plain computation, as is done before the kernels are used on a device."""
    _try(torch.float32, torch.device("cpu"), 20, True)


def test_the_trial_finds_a_wrong_result() -> None:
    with (
        mock.patch.object(biased_attention, "_plain", lambda *given: 1.01 * _plain(*given)),
        pytest.raises(RuntimeError, match="result differs from a plain computation by 0"),
    ):
        _try(torch.float32, torch.device("cpu"), 16, False)
