"""Peak memory over a window of optimizer steps."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from harness.errors import NotMeasurableError, OutOfMemoryError
from harness.measurement.nvml import process_bytes
from harness.records.measurements import Memory
from harness.records.reasons import explain_nulls

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_THRESHOLD = 128 * 2**10
"""Initial value of both in glibc. A value that was set stays; otherwise glibc raises it."""


_OF_CUDA = ("reserved_bytes", "process_bytes", "allocation_retries", "workspace_bytes")
"""Fields of the report that a CPU does not have."""


def measure_memory(
    step: Callable[[], object], steps: int, device: torch.device, held: Callable[[], int]
) -> Memory:
    """Measure the peak memory over ``steps`` calls of ``step``, after one call to warm up.

    On CUDA the peak is that of the device's tensors. On a CPU it is the peak resident memory of the
    whole process, which also depends on the C allocator. The bytes in live tensors are therefore
    counted as well, from the allocator's events during one more step.

    Args:
        step: takes one optimizer step, and leaves no gradients behind.
        steps: the number of calls to measure.
        device: the device of the model.
        held: returns the bytes of the tensors that live on between steps.
    """
    step()  # It creates the optimizer's state.
    gc.collect()
    if device.type == "cuda":
        return _measure_cuda(step, steps, device)
    static = resident("VmRSS")
    reset_peak()
    for _ in range(steps):
        step()
    memory = Memory(
        peak_bytes=resident("VmHWM"),
        static_bytes=static,
        tensor_bytes=held() + peak_of_allocations(step),
    )
    explain_nulls(memory, "it is a number of the CUDA allocator, and this is a CPU", *_OF_CUDA)
    return memory


def _measure_cuda(step: Callable[[], object], steps: int, device: torch.device) -> Memory:
    torch.cuda.synchronize(device)
    static = torch.cuda.memory_allocated(device)
    workspaces = _workspaces(device)
    retries = _retries(device)
    torch.cuda.empty_cache()  # What earlier work left reserved does not count.
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(steps):
        step()
    torch.cuda.synchronize(device)
    memory = Memory(
        peak_bytes=torch.cuda.max_memory_allocated(device),
        static_bytes=static,
        reserved_bytes=torch.cuda.max_memory_reserved(device),
        allocation_retries=_retries(device) - retries,
        workspace_bytes=workspaces,
    )
    explain_nulls(memory, "on CUDA peak_bytes is that of tensors alone", "tensor_bytes")
    try:
        # Recording a step returns what the allocator had reserved, so that it holds less now.
        returned = torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device)
        memory.process_bytes = process_bytes(device) + returned
    except NotMeasurableError as error:
        explain_nulls(memory, str(error), "process_bytes")
    return memory


def peak_of_work(work: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Return the bytes held before ``work`` and the peak during it.

    They are counted as ``measure_memory`` counts them. The work must have been done before, so that
    kernels are loaded.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        _workspaces(device)
        static = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return static, torch.cuda.max_memory_allocated(device)
    return_freed_blocks()
    static = resident("VmRSS")
    reset_peak()
    work()
    return static, resident("VmHWM")


def _workspaces(device: torch.device) -> int:
    """Free cuBLAS's workspaces and return their bytes; the next matrix product allocates them."""
    held = torch.cuda.memory_allocated(device)
    torch._C._cuda_clearCublasWorkspaces()
    return held - torch.cuda.memory_allocated(device)


def _retries(device: torch.device) -> int:
    count: int = torch.cuda.memory_stats(device)["num_alloc_retries"]
    return count


def resident(field: str) -> int:
    """Return VmRSS or VmHWM of this process in bytes (Linux)."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


def peak_so_far(device: torch.device) -> int | None:
    """Return the peak bytes of tensors on a CUDA device, or on a CPU of this whole process.

    It does not initialise CUDA: for a device that this process has not used it returns None.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) or None
    return resident("VmHWM")


WHY_NOT_REACHED = "unknown: the process was killed, or had nothing on the device yet"
"""The reason that a report gives if ``memory_reached`` is None."""


def memory_reached(error: BaseException, device: torch.device | None) -> int | None:
    """Return the peak bytes of the process that ran out of memory, or None if it is unknown.

    Args:
        error: the error of running out of memory.
        device: the device of the training, None before it is chosen; the host's memory may have
            run out instead.
    """
    if isinstance(error, OutOfMemoryError):
        return error.reached  # Another process ran out of memory, not this one.
    on_host = isinstance(error, (MemoryError, OSError)) or "allocate memory" in str(error)
    return peak_so_far(torch.device("cpu") if on_host or device is None else device)


def reset_peak() -> None:
    """Reset VmHWM to the bytes that are resident now (Linux, see proc_pid_clear_refs(5))."""
    _CLEAR.write_text("5")


def return_freed_blocks() -> None:
    """Make the C allocator return large blocks to the system as soon as they are freed (glibc).

    By default it does so only at first. The larger the blocks that are freed, the larger are those
    that it keeps, so resident memory depends on all that the process did before. This setting makes
    training slower, and training needs as much memory as without it.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD)
    trim_heap()


def trim_heap() -> None:
    """Return to the system the freed blocks that the C allocator keeps (glibc)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def peak_of_allocations(work: Callable[[], object]) -> int:
    """Return the peak bytes of the CPU tensors that ``work`` creates."""
    return max(_live_bytes(work), default=0)


def bytes_alive() -> int:
    """Return the bytes of all CPU tensors that Python holds; shared storages count once."""
    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    storages = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes()
        for t in tensors
        if t.device.type == "cpu" and t.layout == torch.strided
    }
    return sum(storages.values())


def _live_bytes(work: Callable[[], object]) -> list[int]:
    """Return the live bytes after each event of the CPU allocator; ``work`` begins with 0."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: int(event.start_ns()))
    return list(accumulate(event.nbytes() for event in events))
