"""Several processes take the steps of one training: shares, sums, and failing together."""

from __future__ import annotations

import multiprocessing
import runpy
import socket
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.data.examples import Example
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.schedule import Schedule

EXAMPLES = [Example([number, 1], [number, 1]) for number in range(40)]


@given(
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 8),
    accumulation=st.integers(1, 4),
    size=st.integers(1, 5),
)
def test_shares_hold_each_example_once_in_no_larger_batches(
    examples: int, batch_size: int, accumulation: int, size: int
) -> None:
    schedule = Schedule(EXAMPLES[:examples], batch_size, accumulation, seed=0)
    for step in schedule.steps(0, schedule.steps_per_epoch):
        shares = [Processes(rank, size).share(step) for rank in range(size)]
        batches = [batch for share in shares for batch in share.micro_batches]
        together = Counter(e.source[0] for e in chain(*batches))
        assert together == Counter(e.source[0] for e in chain(*step.micro_batches))
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        counts = [share.examples for share in shares]
        assert max(counts) - min(counts) <= 1
        assert sum(share.target_tokens for share in shares) == step.target_tokens


def test_a_process_alone_does_what_it_is_given() -> None:
    (step,) = Schedule(EXAMPLES, 4, 2, seed=0).steps(0, 1)
    assert SINGLE_PROCESS.share(step) is step
    weight = nn.Parameter(torch.ones(2))
    SINGLE_PROCESS.start(0)
    assert SINGLE_PROCESS.step(0, [weight], lambda: torch.tensor(3.0)) == 3


# Weights, and gradients that say which process and how often it was asked.
TOGETHER = """
import sys
import torch
from torch import nn
from harness.training.processes import join

fails, error = int(sys.argv[1]), sys.argv[2]
weights = [nn.Parameter(torch.zeros(shape)) for shape in (3, (2, 2), 1)]
with join("cpu") as processes:
    rank = processes.rank

    def backward():
        if fails == rank:
            raise MemoryError("no room") if error == "memory" else ValueError("no sense")
        if rank == 1:  # Has no examples.
            return torch.zeros(())
        loss = sum((w * w).sum() for w in weights[:2]) * (rank + 1)
        loss.backward()
        return loss.detach()

    if rank == 0:
        processes.start(7)
        for number in (7, 8):
            with torch.no_grad():
                weights[0].fill_(number)
                weights[1].fill_(2.0)
            try:
                loss = processes.step(number, weights, backward)
            except Exception as e:
                print(type(e).__name__, e)
                break
            print(float(loss), weights[0].grad.tolist(), weights[1].grad.flatten().tolist(),
                  weights[2].grad)
            for w in weights:
                w.grad = None
    else:
        assert processes.receive_step() == 7
        processes.raise_if_any_failed(None)
        try:
            processes.run_worker(0, weights, iter([backward] * 2))
        except Exception:
            assert processes.receive_step() == -1
"""


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., str]:
    """Run the script in three processes; return what the first one printed."""

    def start(*arguments: Any) -> str:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        processes, outputs = [], []
        for rank in range(3):
            group = {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            outputs.append(tmp_path / f"output{rank}")
            script = tmp_path / f"script{rank}.py"
            script.write_text(
                "import os, sys\n"
                f"os.environ.update({ {**group, 'RANK': str(rank)} })\n"
                f"sys.argv[1:] = {[*map(str, arguments)]}\n"
                f"sys.stdout = open({str(outputs[-1])!r}, 'w')\n"
                f"{TOGETHER}"
            )
            processes.append(context.Process(target=runpy.run_path, args=(str(script),)))
            processes[-1].start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        printed = [output.read_text() for output in outputs]
        assert printed[1:] == ["", ""]
        return printed[0]

    return start


def test_loss_and_gradients_are_sums_at_the_first_process_s_weights(
    together: Callable[..., str],
) -> None:
    # (1 + 0 + 3) x (3 n^2 + 4 x 2^2), and its derivatives 8 n and 16.
    assert together(-1, "").splitlines() == [
        f"{4.0 * (3 * 49 + 16)} {[56.0] * 3} {[16.0] * 4} None",
        f"{4.0 * (3 * 64 + 16)} {[64.0] * 3} {[16.0] * 4} None",
    ]


@pytest.mark.parametrize(
    ("rank", "error", "said"),
    [
        (2, "memory", "OutOfMemoryError Process 2: no room"),
        (1, "other", "RuntimeError Process 1: no sense"),
        (0, "other", "ValueError no sense"),
    ],
)
def test_an_error_in_one_process_ends_all(
    together: Callable[..., str], rank: int, error: str, said: str
) -> None:
    assert together(rank, error).splitlines() == [said]
