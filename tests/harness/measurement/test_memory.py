"""Measurements of memory against allocations of known size."""

from pathlib import Path

import pytest
import torch

from harness.measurement import memory
from harness.measurement.memory import (
    measure_memory,
    peak_of_allocations,
    reset_peak,
    resident,
)

MIB = 2**20
KNOWN = 256 * MIB
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="resident bytes are read from Linux' /proc"
)


def allocate(size: int) -> None:
    torch.ones(size, dtype=torch.uint8)


def test_a_known_allocation_reads_as_its_size() -> None:
    held = 3 * MIB
    reading = measure_memory(lambda: allocate(KNOWN), 3, CPU, lambda: held)
    assert reading.peak_bytes - reading.static_bytes == pytest.approx(KNOWN, rel=0.05)
    assert reading.tensor_bytes == pytest.approx(held + KNOWN, rel=1e-3)
    assert reading.reserved_bytes is None


def test_twice_the_allocation_reads_as_twice_and_more_steps_as_the_same() -> None:
    one = measure_memory(lambda: allocate(KNOWN // 2), 3, CPU, lambda: 0)
    two = measure_memory(lambda: allocate(KNOWN), 6, CPU, lambda: 0)
    assert two.peak_bytes - two.static_bytes == pytest.approx(
        2 * (one.peak_bytes - one.static_bytes), rel=0.05
    )


def test_the_peak_is_that_of_the_largest_step_of_the_window() -> None:
    sizes = iter(
        [1, KNOWN // MIB, 1, 1, 1]
    )  # One step before the window, three in it, one after it.
    order: list[int] = []

    def step() -> None:
        order.append(next(sizes))
        allocate(order[-1] * MIB)

    reading = measure_memory(step, 3, CPU, lambda: 0)
    assert reading.peak_bytes - reading.static_bytes == pytest.approx(KNOWN, rel=0.05)


def test_memory_freed_before_the_window_does_not_count() -> None:
    allocate(2 * KNOWN)
    sizes = iter(
        [2 * KNOWN // MIB, 64, 64, 64, 64]
    )  # The first step is warm-up and does not count.
    reading = measure_memory(lambda: allocate(next(sizes) * MIB), 3, CPU, lambda: 0)
    assert reading.peak_bytes - reading.static_bytes == pytest.approx(64 * MIB, rel=0.1)


def test_static_bytes_count_what_outlives_the_step() -> None:
    before = resident("VmRSS")
    kept: list[torch.Tensor] = []

    def step() -> None:
        if not kept:
            kept.append(torch.ones(KNOWN, dtype=torch.uint8))

    reading = measure_memory(step, 3, CPU, lambda: sum(t.nbytes for t in kept))
    assert reading.static_bytes - before == pytest.approx(KNOWN, rel=0.05)
    assert reading.tensor_bytes == KNOWN


class Allocator:
    """The allocator of a CUDA device; cuBLAS keeps a workspace there from its first product on."""

    workspace = 32 * MIB

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept = 100 * MIB
        self.in_workspace = 0
        self.peak = 0
        self.retries = 5
        cuda = {
            "synchronize": lambda device: None,
            "memory_allocated": lambda device: self.kept + self.in_workspace,
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", 0),
            "max_memory_allocated": lambda device: self.peak,
            "max_memory_reserved": lambda device: 2 * self.peak,
            "memory_stats": lambda device: {"num_alloc_retries": self.retries},
        }
        for name, replacement in cuda.items():
            monkeypatch.setattr(torch.cuda, name, replacement)
        name = "_cuda_clearCublasWorkspaces"
        monkeypatch.setattr(torch._C, name, self.clear, raising=False)
        monkeypatch.setattr(memory, "process_bytes", lambda device: 3 * self.peak)

    def clear(self) -> None:
        self.in_workspace = 0

    def step(self) -> None:
        self.in_workspace = self.workspace
        self.retries += 1
        self.peak = max(self.peak, self.kept + self.in_workspace + 8 * MIB)


def test_on_cuda_workspaces_of_cublas_are_reported_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cuda")
    reading = measure_memory(Allocator(monkeypatch).step, 3, device, lambda: 0)
    assert reading.workspace_bytes == 32 * MIB
    # They are still part of what a step needs.
    assert reading.peak_bytes == (100 + 32 + 8) * MIB
    assert reading.static_bytes == (100 + 32) * MIB
    assert reading.allocation_retries == 3


def test_the_count_of_tensor_bytes_is_exact() -> None:
    def work() -> None:
        first = torch.empty(4 * MIB, dtype=torch.uint8)
        second = torch.empty(6 * MIB, dtype=torch.uint8)
        del first
        third = torch.empty(3 * MIB, dtype=torch.uint8)
        del second, third
        torch.empty(5 * MIB, dtype=torch.uint8)

    assert peak_of_allocations(work) == 10 * MIB
    assert peak_of_allocations(lambda: None) == 0


def test_the_peak_of_resident_bytes_starts_again() -> None:
    allocate(KNOWN)
    assert resident("VmHWM") > resident("VmRSS") + KNOWN // 2
    reset_peak()
    assert resident("VmHWM") < resident("VmRSS") + KNOWN // 10
    with pytest.raises(OSError, match="has no VmNothing"):
        resident("VmNothing")
