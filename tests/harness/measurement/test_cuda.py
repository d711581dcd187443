"""Measurements on CUDA against allocations, kernels and loads of known size."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import forkserver

import pytest
import torch

from harness.errors import NotMeasurableError
from harness.measurement.energy import Meter, Nvml
from harness.measurement.fingerprint import explain_no_driver, fingerprint
from harness.measurement.memory import measure_memory
from harness.measurement.nvml import process_bytes
from harness.measurement.probe import (
    freeze,
    measure_memory_of,
    measured_process,
    memory_within,
    probe_speed,
)
from harness.records.measurements import Memory
from harness.records.report import Report
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Schedule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

MakeSpec = Callable[..., RunSpec]
MIB = 2**20
KNOWN = 256 * MIB
TOKENS = 40
"""Tokens of a step of the fixture ``schedule``."""


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """Start the server that measured processes are forked from, so that it imports meanwhile."""
    forkserver.ensure_running()


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def make_cuda_spec(make_spec: MakeSpec) -> MakeSpec:
    return lambda recipe, **probe: make_spec(recipe, **probe).model_copy(update={"device": "cuda"})


def measure(device: torch.device, *mebibytes: int) -> Memory:
    """Measure steps that allocate and free this much memory; the first one is warm-up."""
    sizes = iter(mebibytes)
    # Workspaces count as static memory, since a training allocates them again. These steps would
    # not: static memory would then be too large by 32 MiB, as on an H200 after a matrix product.
    torch._C._cuda_clearCublasWorkspaces()

    def step() -> None:
        torch.ones(next(sizes) * MIB, dtype=torch.uint8, device=device)

    return measure_memory(step, len(mebibytes) - 1, device, lambda: 0)


def test_a_known_allocation_reads_as_its_size(device: torch.device) -> None:
    reading = measure(device, *[256] * 4)
    assert reading.peak_bytes - reading.static_bytes == pytest.approx(KNOWN, rel=0.05)
    assert reading.tensor_bytes is None
    assert reading.reserved_bytes
    assert reading.reserved_bytes >= reading.peak_bytes
    assert reading.allocation_retries == 0
    assert "tensor_bytes" in reading.not_measured


def test_workspaces_of_cublas_are_reported_apart(device: torch.device) -> None:
    left = torch.ones(512, 512, device=device)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    reading = measure_memory(lambda: left @ left, 3, device, lambda: 0)
    assert reading.workspace_bytes
    assert reading.static_bytes == before + reading.workspace_bytes
    assert reading.peak_bytes == pytest.approx(reading.static_bytes + left.nbytes, rel=0.05)


def test_memory_freed_before_the_window_does_not_count(device: torch.device) -> None:
    torch.ones(2 * KNOWN, dtype=torch.uint8, device=device)
    reading = measure(device, 512, 64, 128, 64)
    assert reading.peak_bytes - reading.static_bytes == pytest.approx(128 * MIB, rel=0.05)


def test_the_process_holds_at_least_what_the_allocator_holds(device: torch.device) -> None:
    reading = measure(device, *[256] * 4)
    if reading.process_bytes is None:
        pytest.skip(f"NVML's account: {reading.not_measured['process_bytes']}")
    assert reading.reserved_bytes
    assert reading.process_bytes >= reading.reserved_bytes
    held = torch.ones(4 * KNOWN, dtype=torch.uint8, device=device)
    assert process_bytes(device) >= held.nbytes
    assert "process_bytes" not in reading.not_measured


def test_retried_allocations_are_counted(device: torch.device) -> None:
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    limit = torch.cuda.memory_reserved(device) + min(free, 8 * KNOWN)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    # Two sizes of which both do not fit: each time what the other one left is given back.
    sizes = iter([limit * 5 // 8 // MIB, limit * 6 // 8 // MIB] * 2)

    def step() -> None:
        torch.empty(next(sizes) * MIB, dtype=torch.uint8, device=device)

    try:
        reading = measure_memory(step, 3, device, lambda: 0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    assert reading.allocation_retries
    assert reading.allocation_retries >= 1


def cycles_and_seconds(device: torch.device) -> tuple[int, float]:
    """Return the cycles of a kernel that spins for about a third of a second, and its seconds."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cycles = 6 * 10**8
    for _ in range(3):  # By the third time the clock has reached its rate under load.
        began.record()
        torch.cuda._sleep(cycles)
        ended.record()
        torch.cuda.synchronize(device)
    return cycles, began.elapsed_time(ended) / 1000


@pytest.mark.usefixtures("known_costs")
def test_a_known_kernel_reads_as_the_right_speed_ratio_and_parts(
    make_cuda_spec: MakeSpec, schedule: Schedule, device: torch.device
) -> None:
    cycles, seconds = cycles_and_seconds(device)
    slow = make_cuda_spec(f"costly:cycles={2 * cycles}")
    fast = make_cuda_spec(f"costly:cycles={cycles}")
    frozen = freeze(schedule, slow.probe)
    speed = probe_speed(slow, frozen, fast, lambda: None)
    assert speed.tokens_per_s == pytest.approx(TOKENS / (2 * seconds), rel=0.05)
    assert speed.relative == pytest.approx(0.5, rel=0.05)
    # The kernel is queued before the forward pass and counts as its time.
    assert speed.parts
    assert speed.parts.forward == pytest.approx(2 * seconds, rel=0.05)
    parts = speed.parts.model_dump().values()
    assert sum(parts) == pytest.approx(TOKENS / speed.tokens_per_s, rel=0.05)


@pytest.mark.usefixtures("known_costs")
def test_a_known_allocation_of_a_recipe_reads_as_the_right_peak(
    make_cuda_spec: MakeSpec, schedule: Schedule
) -> None:
    """A process that has been timed measures the same memory as one that has not."""
    large, plain = make_cuda_spec("costly:mebibytes=384"), make_cuda_spec("costly")
    frozen = freeze(schedule, large.probe)
    with measured_process(large, frozen) as process:
        peak = memory_within(process, large).peak_bytes
        process.window(0, 3)
        again = memory_within(process, large).peak_bytes
    assert again == pytest.approx(peak, rel=0.01)
    plain_peak = measure_memory_of(plain, frozen).peak_bytes
    assert peak - plain_peak == pytest.approx(384 * MIB, rel=0.05)


def test_the_energy_counter_moves_under_load(device: torch.device) -> None:
    try:
        meter = Meter(Nvml(device))
    except NotMeasurableError as error:
        pytest.skip(f"this device's energy cannot be measured: {error}")
    matrix = torch.randn(4096, 4096, device=device)
    began = time.perf_counter()
    with meter.window():
        while time.perf_counter() - began < 2:
            matrix @ matrix
            torch.cuda.synchronize(device)
    energy = meter.energy(tokens=1000)
    assert energy.source == "nvml"
    assert energy.joules
    assert energy.joules == energy.joules_per_1000_tokens
    assert meter.idle_watts > 1
    assert 1 < energy.joules / 2 < 3000


def test_the_driver_is_named_or_has_a_reason(
    device: torch.device, make_report: Callable[..., Report]
) -> None:
    report = make_report(fingerprint=fingerprint(device, torch.bfloat16, "sdpa"))
    explain_no_driver(report)
    assert report.fingerprint
    assert report.fingerprint.device == torch.cuda.get_device_name(device)
    assert (report.fingerprint.driver is None) == ("fingerprint.driver" in report.not_measured)
