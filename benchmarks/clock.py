"""Time of a contender's timed steps, read without disturbing them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from harness.measurement.memory import reset_peak, resident


@dataclass
class Window:
    """Measurements of one contender's timed steps.

    Attributes:
        tokens: tokens of the sources and targets of the timed steps; they depend on the batching.
        wall: wall time in seconds.
        processor: processor time of all threads in seconds.
        memory: peak memory in bytes. On a CPU it is the growth of the process since before the
            model was built, on CUDA the memory of all tensors since the process began: a recorded
            step allocates its memory only once, when it is recorded.
        losses: loss of each step, including the warm-up.
        engine: name of the harness's engine.
    """

    tokens: int
    wall: float
    processor: float
    memory: int
    losses: list[float]
    engine: str = ""

    @property
    def rate(self) -> float:
        """Tokens per second of wall time."""
        return self.tokens / self.wall

    @property
    def rate_by_processor(self) -> float:
        """Tokens per second of processor time, which other work on the machine hardly changes."""
        return self.tokens / self.processor

    def record(self) -> dict[str, Any]:
        """Return the measurements as a dictionary for JSON."""
        return asdict(self)


class Clock:
    """Measures time, tokens and peak memory after the warm-up steps.

    On CUDA it synchronizes with the device when it starts and when it is read, but not in between.
    """

    def __init__(self, warmup: int, device: str) -> None:
        self.warmup = warmup
        self.on_gpu = device == "cuda"
        self.began: tuple[float, float] | None = None
        self.tokens = 0
        self.before = resident("VmRSS")

    def step_done(self, steps: int, tokens: int) -> None:
        """Count a step.

        Args:
            steps: number of steps so far.
            tokens: source and target tokens of the last step.
        """
        self.tokens += tokens
        if steps == self.warmup:
            if self.on_gpu:
                torch.cuda.synchronize()
            else:
                reset_peak()
            self.tokens = 0
            self.began = time.perf_counter(), time.process_time()

    def read(self, losses: list[torch.Tensor]) -> Window:
        """Return the measurements since the warm-up."""
        assert self.began is not None
        if self.on_gpu:
            torch.cuda.synchronize()
        wall, processor = time.perf_counter(), time.process_time()
        return Window(
            self.tokens,
            wall - self.began[0],
            processor - self.began[1],
            torch.cuda.max_memory_allocated() if self.on_gpu else resident("VmHWM") - self.before,
            [float(loss) for loss in losses],
        )


CLOSE = 0.85
"""A peer that reached less than this share of the best one's speed is not measured again."""


def in_the_running(rates: Mapping[str, float]) -> list[str]:
    """Return the peers that may still be the fastest.

    Args:
        rates: name of a peer -> its tokens per second in one window.
    """
    best = max(rates.values())
    return [name for name, rate in rates.items() if rate > CLOSE * best]


def matrix_rate(device: str, threads: int) -> float:
    """Return a device's rate on large square bfloat16 matrices, in operations per second."""
    torch.set_num_threads(threads)
    size, times = (8192, 50) if device == "cuda" else (2048, 5)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def seconds(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds(5)
    return 2 * size**3 * times / min(seconds(times) for _ in range(3))
