"""Errors that mean out of memory, and the memory that a process reached before."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.errors import OutOfMemoryError, is_out_of_memory
from harness.measurement.memory import memory_reached, resident

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as info:  # noqa: PT011 - whatever it raises is looked at.
        call()
    return info.value


@pytest.mark.parametrize(
    "call",
    [lambda: torch.empty(2**60), lambda: np.empty(2**50), lambda: bytearray(2**62)],
    ids=["torch", "numpy", "python"],
)
def test_allocations_beyond_host_memory_are_out_of_memory(call: Callable[[], object]) -> None:
    assert is_out_of_memory(raised(call))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("ncclUnhandledCudaError.\nLast error:\nCuda failure 2 'out of memory'"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryError("The process of full was killed."),
    ],
    ids=lambda error: str(error)[:40],
)
def test_out_of_memory_errors_of_all_libraries_are_recognized(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: too many resources requested for launch"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        ValueError("can't allocate memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_other_errors_are_not_out_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[torch.device, int]:
    """A machine with two CUDA devices: device -> peak bytes of this process's tensors."""
    peaks = {torch.device("cuda", 0): 11, torch.device("cuda", 1): 22}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device])
    return peaks


def test_on_the_cpu_of_a_machine_with_a_gpu_the_peak_of_the_process_counts(
    card: dict[torch.device, int],
) -> None:
    reached = memory_reached(raised(lambda: torch.empty(2**60)), CPU)
    assert reached
    assert reached == pytest.approx(resident("VmHWM"), rel=0.01)


def test_on_cuda_the_peak_of_the_tensors_on_the_own_device_counts(
    card: dict[torch.device, int],
) -> None:
    full = torch.AcceleratorError("CUDA error: out of memory")
    assert memory_reached(full, CUDA) == 22
    # Host memory ran out while weights were read, so the tensors' peak does not count.
    assert memory_reached(MemoryError(), CUDA) == pytest.approx(resident("VmHWM"), rel=0.01)
    card[CUDA] = 0  # Not even the CUDA context fitted.
    assert memory_reached(full, CUDA) is None


def test_the_memory_of_another_process_is_the_one_it_reported() -> None:
    killed, other = OutOfMemoryError("killed"), OutOfMemoryError("no memory")
    other.reached = 7
    assert memory_reached(killed, CPU) is None
    assert memory_reached(other, CPU) == 7
