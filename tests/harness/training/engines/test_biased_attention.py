"""Attention with a relative position bias by Triton kernels.

Triton's interpreter runs the kernels on CPU tensors, and its compiler needs no GPU. Both run in
processes of their own: the interpreter is chosen when Triton is imported. The tests marked ``gpu``
run the kernels themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from harness.training.engines import biased_attention
from harness.training.engines.attention import biased_width, kernels
from harness.training.engines.biased_attention import (
    _Attention,
    attention_with_bias,
    distance_table,
    obstacle,
    takes_bias,
)
from harness.training.engines.fused_attention import padded_within
from harness.training.engines.rows import PackedRow

SHARED = {80: 163 * 2**10, 90: 227 * 2**10}
"""Shared memory of a program in bytes, by compute capability."""
DEVICE = torch.device("cuda")
HEADS = 4


gpu = pytest.mark.gpu
there = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def child(*command: str | Path, **variables: str) -> str:
    pytest.importorskip("triton", reason="Triton is published for Linux on x86-64 and aarch64")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_interpreted_kernels(which: str) -> None:
    script = Path(__file__).with_name("interpreted_kernels.py")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which)
    printed = child(*words, script, TRITON_INTERPRET="1")
    assert " passed" in printed
    assert "skipped" not in printed


def check_sizes(*arguments: str, count: int, stack: int) -> None:
    printed = child(Path(__file__).with_name("compiled_kernels.py"), *arguments).splitlines()
    assert len(printed) == count
    for case, found in (json.loads(line).values() for line in printed):
        capability = int(case.split("sm_")[1].split()[0])
        assert 0 < found["shared"] <= SHARED[capability], case
        assert found["stack"] <= stack, case


def test_kernels_compile_for_gpus_and_spill_hardly_any_registers() -> None:
    check_sizes(count=6, stack=16)


@pytest.mark.slow
def test_kernels_compile_in_all_configurations() -> None:
    check_sizes("all", count=96, stack=256)


def test_the_table_holds_the_bias_of_each_distance() -> None:
    longest = 5
    places = torch.arange(longest)
    distance = places[None] - places[:, None]
    bias = torch.stack([distance * 1.0, distance * 10.0])[None]
    expected = torch.arange(1.0 - longest, longest)
    assert torch.equal(distance_table(bias), torch.stack([expected, 10 * expected]))


@pytest.mark.parametrize("trained", [False, True])
def test_shapes_are_known_without_data(trained: bool) -> None:
    q, k, v = (torch.empty(9, HEADS, 20, device="meta", requires_grad=True) for _ in range(3))
    table = torch.empty(HEADS, 13, device="meta", requires_grad=trained)
    offsets = torch.empty(3, dtype=torch.int32, device="meta")
    leaves = (q, k, v, table) if trained else (q, k, v)
    result = _Attention.apply(q, k, v, table, offsets, None, 7, 1.0, 0.0, True)  # type: ignore[no-untyped-call]
    assert result.shape == q.shape
    gradients = torch.autograd.grad(result, leaves, torch.empty_like(result))
    assert [g.shape for g in gradients] == [x.shape for x in leaves]


@contextmanager
def capability(*number: int) -> Iterator[None]:
    biased_attention._failure.cache_clear()
    with (
        mock.patch.object(torch.version, "cuda", "13.0"),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=number),
    ):
        yield
    biased_attention._failure.cache_clear()


def test_kernels_that_fail_are_not_used() -> None:
    with capability(9, 0), mock.patch.object(biased_attention, "_try") as trial:
        assert takes_bias(torch.float32, DEVICE, 64)
        assert kernels(DEVICE, torch.float32) == "packed: padded within; Triton where " + (
            "there is a position bias"
        )
        assert trial.call_count == 2  # Each causal mask, once.
        trial.side_effect = OSError("no compiler\nlook there")
        assert obstacle(torch.float16, DEVICE, 64) == "OSError: no compiler"
        assert not takes_bias(torch.float16, DEVICE, 64)
        assert takes_bias(torch.float32, DEVICE, 64)
        assert kernels(DEVICE, torch.float32, 32) == "packed: padded within"


def test_other_devices_heads_and_dtypes_are_not_taken() -> None:
    with capability(7, 5), mock.patch.object(biased_attention, "_try"):
        assert "Ampere" in str(obstacle(torch.bfloat16, DEVICE, 64))
    with capability(9, 0), mock.patch.object(biased_attention, "_try"):
        assert "256 wide" in str(obstacle(torch.bfloat16, DEVICE, 256))
        assert "float64" in str(obstacle(torch.float64, DEVICE, 64))
    assert "GPU" in str(obstacle(torch.bfloat16, torch.device("cpu"), 64))


def test_t5_has_a_relative_bias_and_bart_has_none() -> None:
    with torch.device("meta"):
        t5 = T5ForConditionalGeneration(T5Config(d_kv=24, d_model=16, num_layers=1, vocab_size=8))
        bart = BartForConditionalGeneration(
            BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=8)
        )
    assert biased_width(t5) == 24
    assert biased_width(bart) is None


def row_of(*lengths: int, bound: int = 0) -> PackedRow:
    offsets = torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32, device=DEVICE)
    positions = torch.cat([torch.arange(n) for n in lengths]).to(DEVICE)
    return PackedRow(lengths, positions, offsets, bound)


def made(row: PackedRow, width: int = 64) -> list[Tensor]:
    """Return query, key, value and upstream gradient, and a bias; float32."""
    torch.manual_seed(0)
    places = torch.arange(row.longest)
    table = torch.randn(HEADS, 2 * row.longest - 1)
    bias = table[None, :, places - places[:, None] + row.longest - 1]
    tensors = *(torch.randn(sum(row.lengths), HEADS, width) for _ in range(4)), bias
    return [x.to(DEVICE) for x in tensors]


def run(
    row: PackedRow, tensors: Sequence[Tensor], dtype: torch.dtype, causal: bool, ours: bool
) -> dict[str, Tensor]:
    """Return result and gradients without dropout; that of the bias by distance."""
    q, k, v = (x.to(dtype).requires_grad_() for x in tensors[:3])
    bias = tensors[4].clone().requires_grad_()
    if ours:
        result = attention_with_bias(q, k, v, bias, row, 0.125, 0.0, causal)
    else:
        result = padded_within(q, k, v, bias, row, row, 0.125, 0.0, causal)
    *gradients, of_bias = torch.autograd.grad(result, (q, k, v, bias), tensors[3].to(dtype))
    by_distance = [
        of_bias[0].diagonal(d, 1, 2).sum(-1) for d in range(1 - row.longest, row.longest)
    ]
    names = "result", "query", "key", "value", "bias"
    return dict(zip(names, (result, *gradients, torch.stack(by_distance)), strict=True))


@gpu
@there
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [16, 20, 64, 128])
def test_the_kernels_can_be_used_on_this_device(dtype: torch.dtype, width: int) -> None:
    assert obstacle(dtype, DEVICE, width) is None


@gpu
@there
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bound", [0, 384])
@pytest.mark.parametrize("longest", [1, 63, 64, 192, 320])
@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.02), (torch.float32, 1e-3)])
@pytest.mark.parametrize("width", [64, 20])
def test_result_and_gradients_are_those_of_padded_attention(
    causal: bool, bound: int, longest: int, dtype: torch.dtype, close: float, width: int
) -> None:
    """The reference is padded attention in float32."""
    row = row_of(longest, 5, max(1, longest - 1), 1, bound=bound)
    tensors = made(row, width)
    expected = run(row, tensors, torch.float32, causal, ours=False)
    found = run(row, tensors, dtype, causal, ours=True)
    for name, one in found.items():
        assert one.isfinite().all(), name
        distance = float((one.float() - expected[name]).norm() / expected[name].norm())
        assert distance < close, name


@gpu
@there
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_behind_the_last_sequence_and_empty_sequences(dtype: torch.dtype) -> None:
    """They get zeros, and do not matter to the others, even if they are not finite."""
    short = made(row_of(70, 30, bound=128))
    long = [torch.cat([x, x.new_full((300, *x.shape[1:]), torch.nan)]) for x in short[:4]]
    expected = run(row_of(70, 30, bound=128), short, dtype, True, ours=True)
    found = run(row_of(0, 70, 0, 30, 0, bound=128), [*long, short[4]], dtype, True, ours=True)
    torch.testing.assert_close(found.pop("bias"), expected["bias"], rtol=1e-3, atol=1e-3)
    for name, one in found.items():
        assert torch.equal(one[:100], expected[name]), name
        assert not one[100:].any(), name


@gpu
@there
@pytest.mark.parametrize("p", [0.1, 0.3])
def test_dropped_probabilities_have_the_requested_share_and_differ_between_calls(p: float) -> None:
    row = row_of(*[64] * 16)
    zeros = torch.zeros(64 * 16, 8, 64, dtype=torch.bfloat16, device=DEVICE)
    values = torch.eye(64, dtype=torch.bfloat16, device=DEVICE).repeat(16, 1)
    values = values[:, None].expand(-1, 8, -1).contiguous()
    bias = torch.zeros(1, 8, 64, 64, device=DEVICE)
    one, other = (
        attention_with_bias(zeros, zeros, values, bias, row, 1.0, p, False) for _ in range(2)
    )
    kept = one[one != 0].float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 64 / (1 - p)), rtol=0.01, atol=0)
    # 524,288 draws: 0.004 are six standard deviations.
    assert float((one == 0).float().mean()) == pytest.approx(p, abs=0.004)
    # Independent masks drop a probability in both calls with the square of p.
    both = ((one == 0) & (other == 0)).float().mean()
    assert float(both) == pytest.approx(p * p, abs=0.004)


@gpu
@there
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_the_mask_of_the_forward_pass(
    dtype: torch.dtype, causal: bool
) -> None:
    row, p, n = row_of(64, 64, 64), 0.3, 64
    q, k, v, upstream, bias = made(row)
    table, seed = distance_table(bias), torch.tensor(11, device=DEVICE)

    def attend(causal: bool, *tensors: Tensor) -> Tensor:
        result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            *tensors, row.offsets, seed, n, 0.125, p, causal
        )
        return result

    hot = torch.eye(n, device=DEVICE).repeat(3, 1)[:, None].expand(-1, HEADS, -1).contiguous()
    factors = n * attend(False, q * 0, k * 0, hot, table * 0).view(3, n, HEADS, n).transpose(1, 2)
    leaves = [x.requires_grad_() for x in (*(x.to(dtype) for x in (q, k, v)), table)]
    a, b, c = (x.float().view(3, n, HEADS, 64).transpose(1, 2) for x in leaves[:3])
    places = torch.arange(n, device=DEVICE)
    distances = places - places[:, None]
    scores = a @ b.transpose(2, 3) * 0.125 + leaves[3][:, distances + n - 1]
    scores = scores.masked_fill((distances > 0) & causal, -torch.inf)
    expected = (scores.softmax(-1) * factors @ c).transpose(1, 2).reshape(upstream.shape)
    found = attend(causal, *leaves)
    wanted = expected, *torch.autograd.grad(expected, leaves, upstream)
    results = found, *torch.autograd.grad(found, leaves, upstream.to(dtype))
    names = "result", "query", "key", "value", "bias"
    for name, one, other in zip(names, results, wanted, strict=True):
        distance = float((one.float() - other.float()).norm() / other.float().norm())
        assert distance < (1e-3 if dtype == torch.float32 else 0.02), name


@gpu
@there
def test_each_replay_of_a_graph_draws_another_mask_for_both_passes() -> None:
    row, p = row_of(*[64] * 4, bound=128), 0.5
    zeros = torch.zeros(256, HEADS, 64, device=DEVICE)
    bias = torch.zeros(1, HEADS, 128, 128, device=DEVICE)
    hot = torch.eye(64, device=DEVICE).repeat(4, 1)[:, None].expand(-1, HEADS, -1).contiguous()
    values = hot.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        """Return probabilities, and the sum over the queries of the same probabilities."""
        result = attention_with_bias(zeros, zeros, values, bias, row, 1.0, p, False)
        (gradient,) = torch.autograd.grad(result, values, torch.ones_like(result))
        return result.detach(), gradient

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    seen = []
    for _ in range(2):
        graph.replay()
        result, gradient = (x.clone() for x in captured)
        sums = result.view(4, 64, HEADS, 64).sum(1).transpose(1, 2)
        torch.testing.assert_close(
            gradient[..., 0].view(4, 64, HEADS), sums, rtol=1e-3, atol=1e-4,
            msg=lambda m: f"the backward pass drew another mask: {m}",
        )  # fmt: skip
        assert float((result == 0).float().mean()) == pytest.approx(p, abs=0.02)
        seen.append(result)
    assert not torch.equal(*seen), "both replays drew the same mask"
