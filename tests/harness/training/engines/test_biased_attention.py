"""Attention with a relative position bias by Triton kernels.

Triton's interpreter runs the kernels on CPU tensors, and its compiler needs no GPU. Both run in
processes of their own: the interpreter is chosen when Triton is imported. The tests marked ``gpu``
run the kernels themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.training.engines.attention import _PerSequence
from harness.training.engines.biased_attention import (
    attention_with_bias,
    distance_table,
    takes_bias,
    why_not,
)
from harness.training.engines.rows import PackedRow

SHARED = {80: 163 * 2**10, 90: 227 * 2**10}
"""Shared memory of a program in bytes, by compute capability."""
DEVICE = torch.device("cuda")
gpu = pytest.mark.gpu
there = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def child(name: str, *arguments: str) -> dict[str, Any]:
    pytest.importorskip("triton", reason="Triton is published for Linux on x86-64 and aarch64")
    script = Path(__file__).with_name(name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["case"]: row["found"] for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    return child("interpreted_kernels.py", "6")


def test_interpreted_kernels_give_the_results_and_gradients_of_a_plain_computation(
    interpreted: dict[str, Any],
) -> None:
    assert len(interpreted) == 11
    for case, distances in interpreted.items():
        for name in ("result", "query", "key", "value", "bias"):
            assert distances[name] < 1e-5, (case, name)


def test_interpreted_kernels_drop_the_requested_share_of_probabilities(
    interpreted: dict[str, Any],
) -> None:
    found = [x for x in interpreted.values() if "dropped" in x]
    for p, case in zip((0.1, 0.3), found, strict=True):
        assert case["dropped"] == pytest.approx(p, abs=0.02)
        assert case["factor"] == pytest.approx(1 / (1 - p), rel=1e-4)


def check_sizes(found: dict[str, Any]) -> None:
    for case, sizes in found.items():
        capability = int(case.split("sm_")[1].split()[0])
        assert 0 < sizes["shared"] <= SHARED[capability], case
        assert sizes["cubin"] > 0


def test_kernels_compile_for_a_gpu() -> None:
    found = child("compiled_kernels.py")
    assert len(found) == 4
    check_sizes(found)


@pytest.mark.slow
def test_kernels_compile_in_all_configurations() -> None:
    found = child("compiled_kernels.py", "all")
    assert len(found) == 64
    check_sizes(found)


def test_the_table_holds_the_bias_of_each_distance() -> None:
    longest = 5
    places = torch.arange(longest)
    distance = places[None] - places[:, None]
    bias = torch.stack([distance * 1.0, distance * 10.0])[None]
    expected = torch.arange(1.0 - longest, longest)
    assert torch.equal(distance_table(bias), torch.stack([expected, 10 * expected]))


def test_a_cpu_does_not_take_the_kernels() -> None:
    assert why_not(torch.device("cpu")) == "the device is not an NVIDIA GPU"
    assert not takes_bias(torch.bfloat16, torch.device("cpu"), 64)


def row_of(*lengths: int, device: torch.device = DEVICE, bound: int = 0) -> PackedRow:
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
    return PackedRow(lengths, positions, offsets, bound)


def made(row: PackedRow, heads: int = 4, width: int = 64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    distances = torch.randn(heads, 2 * row.longest - 1)
    places = torch.arange(row.longest)
    bias = distances[:, places[None] - places[:, None] + row.longest - 1][None].clone()
    return [*(torch.randn(sum(row.lengths), heads, width) for _ in range(3)), bias]


@gpu
@there
def test_the_kernels_can_be_used_on_this_device() -> None:
    assert why_not(DEVICE) is None


@gpu
@there
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bound", [0, 384])
@pytest.mark.parametrize("longest", [63, 64, 192, 320])
@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.02), (torch.float32, 1e-4)])
def test_result_and_gradients_are_those_of_the_cpu(
    causal: bool, bound: int, longest: int, dtype: torch.dtype, close: float
) -> None:
    lengths = (longest, 5, longest - 1, 1)
    cpu = row_of(*lengths, device=torch.device("cpu"), bound=bound)
    tensors = made(cpu)
    upstream = torch.randn(tensors[0].shape)
    leaves = [t.clone().requires_grad_() for t in tensors]
    q, k, v = (t.transpose(0, 1) for t in leaves[:3])
    expected = _PerSequence.apply(q, k, v, leaves[3], cpu, cpu, 0.125, 0.0, causal)  # type: ignore[no-untyped-call]
    wanted = [expected, *torch.autograd.grad(expected, leaves, upstream)]
    given = [t.to(DEVICE, dtype if n < 3 else torch.float32) for n, t in enumerate(tensors)]
    query, key, value, bias = (t.requires_grad_() for t in given)
    row = row_of(*lengths, bound=bound)
    found = attention_with_bias(query, key, value, bias, row, 0.125, 0.0, causal)
    gradients = torch.autograd.grad(found, (query, key, value, bias), upstream.to(DEVICE, dtype))
    results = [found, *gradients]
    # A gradient reaches one element of the bias for each distance, or each of them: sums agree.
    wanted[4], results[4] = (g.float().sum((0, 2, 3)) for g in (wanted[4], results[4]))
    for name, one, other in zip(("result", "q", "k", "v", "bias"), results, wanted, strict=True):
        distance = float((one.float().cpu() - other).norm() / other.norm())
        assert distance < close, (name, distance)


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
    assert float((one == 0).float().mean()) == pytest.approx(p, abs=0.005)
    # Independent masks drop a probability in both calls with the square of p.
    both = ((one == 0) & (other == 0)).float().mean()
    assert float(both) == pytest.approx(p * p, abs=0.005)


@gpu
@there
def test_each_replay_of_a_graph_draws_another_mask() -> None:
    made_here = made(row_of(*[64] * 4, device=torch.device("cpu")))
    q, k, v, bias = (t.to(DEVICE) for t in made_here)
    attention_with_bias(q, k, v, bias, row_of(*[64] * 4), 0.125, 0.5, False)
    row = row_of(*[64] * 4)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = attention_with_bias(q, k, v, bias, row, 0.125, 0.5, False)
    seen = []
    for _ in range(2):
        graph.replay()
        seen.append(result.clone())
    assert not torch.equal(*seen)
