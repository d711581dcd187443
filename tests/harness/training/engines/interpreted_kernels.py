"""Child process: the kernels of biased attention in Triton's interpreter, on CPU tensors.

Prints a line of JSON for each case: the largest distances from a plain computation.
"""

from __future__ import annotations

import json
import os
import random
import sys
from itertools import accumulate

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from harness.training.engines.biased_attention import attention_with_bias
from harness.training.engines.rows import PackedRow

HEADS, SCALE = 2, 0.3


def row_of(lengths: list[int], bound: int) -> PackedRow:
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lengths])
    return PackedRow(tuple(lengths), positions, offsets, bound)


def plain(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, row: PackedRow, causal: bool, kept: Tensor | None
) -> Tensor:
    """Attend to one sequence after another, in float64."""
    results = []
    for start, stop in zip(row.offsets[:-1].tolist(), row.offsets[1:].tolist(), strict=True):
        a, b, c = (x[start:stop].transpose(0, 1).double() for x in (q, k, v))
        n = stop - start
        scores = a @ b.transpose(1, 2) * SCALE + bias[0, :, :n, :n].double()
        if causal:
            scores += torch.full((n, n), -torch.inf).triu(1)
        weights = scores.softmax(-1)
        if kept is not None:
            weights = weights * kept[:, start:stop, :n]
        results.append((weights @ c).transpose(0, 1))
    return torch.cat(results)


def mask_of(row: PackedRow, p: float, width: int) -> Tensor:
    """Return the factors of the probabilities, shape (heads, tokens, width), by one-hot values."""
    tokens = len(row.positions)
    zeros = torch.zeros(tokens, HEADS, width)
    hot = torch.zeros(tokens, HEADS, width)
    hot[torch.arange(tokens), :, row.positions] = 1
    bias = torch.zeros(1, HEADS, row.longest, row.longest)
    torch.manual_seed(7)
    result = attention_with_bias(zeros, zeros, hot, bias, row, SCALE, p, False)
    lengths = torch.repeat_interleave(row.offsets.diff(), row.offsets.diff())
    return (result * lengths[:, None, None]).transpose(0, 1)


def by_distance(gradient: Tensor) -> Tensor:
    longest = gradient.shape[-1]
    return torch.stack(
        [
            torch.stack([g.diagonal(d).sum() for d in range(1 - longest, longest)])
            for g in gradient[0]
        ]
    )


def measure(lengths: list[int], bound: int, width: int, causal: bool, p: float) -> dict[str, float]:
    """Return the largest distances of the result and of all gradients, and the share dropped."""
    row = row_of(lengths, bound)
    torch.manual_seed(0)
    distances = torch.randn(HEADS, 2 * row.longest - 1)
    places = torch.arange(row.longest)
    bias = distances[:, places[None] - places[:, None] + row.longest - 1][None].clone()
    made = [torch.randn(len(row.positions), HEADS, width) for _ in range(4)]
    leaves = [x.requires_grad_() for x in (*made[:3], bias)]
    kept = mask_of(row, p, width) if p else None
    q, k, v, bias = leaves
    expected = plain(q, k, v, bias, row, causal, kept)
    torch.manual_seed(7)
    found = attention_with_bias(q, k, v, bias, row, SCALE, p, causal)
    pairs = {"result": (found, expected)}
    wanted = torch.autograd.grad(expected, leaves, made[3].double())
    gradients = torch.autograd.grad(found, leaves, made[3])
    for name, one, other in zip(("query", "key", "value"), gradients, wanted, strict=False):
        pairs[name] = one, other
    pairs["bias"] = by_distance(gradients[3]), by_distance(wanted[3])
    record = {n: float((a - b).abs().max() / b.abs().max()) for n, (a, b) in pairs.items()}
    if kept is not None:
        real = (
            torch.arange(width)
            < torch.repeat_interleave(row.offsets.diff(), row.offsets.diff())[:, None]
        )
        record["dropped"] = float((kept[:, real] == 0).float().mean())
        record["factor"] = float(kept.max())
    return record


def main() -> None:
    """Measure fixed and random cases."""
    draw = random.Random(0)
    cases: list[tuple[list[int], int, int, bool, float]] = [
        ([70, 5, 64], 0, 16, False, 0.0),
        ([3, 1, 0, 130], 192, 20, True, 0.0),
        ([64, 64], 128, 64, True, 0.0),
        ([60, 63, 1], 64, 64, False, 0.1),
        ([60, 2], 128, 64, True, 0.3),
    ]
    for _ in range(int(sys.argv[1])):
        lengths = [draw.randint(1, 140) for _ in range(draw.randint(1, 3))]
        width = draw.choice([8, 16, 24, 64])
        cases.append((lengths, draw.choice([0, 160]), width, draw.random() < 0.5, 0.0))
    for case in cases:
        sys.stdout.write(json.dumps({"case": str(case), "found": measure(*case)}) + "\n")


if __name__ == "__main__":
    main()
