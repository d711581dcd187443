"""Energy and memory of a CUDA device, read from NVIDIA's management library (NVML)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import NotMeasurableError

if TYPE_CHECKING:
    import torch


def joules_since_driver_load(device: torch.device) -> float:
    """Return the device's energy counter in joules.

    Raises:
        NotMeasurableError: the device has no counter (before Volta), or NVML fails.
    """
    with _answers() as pynvml:
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        millijoules: int = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return millijoules / 1000


def process_bytes(device: torch.device) -> int:
    """Return the bytes of the device that this process holds, CUDA's own context included.

    Raises:
        NotMeasurableError: NVML does not list this process, as in most containers, or it fails.
    """
    with _answers() as pynvml:
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    for process in processes:
        if process.pid == os.getpid():
            if process.usedGpuMemory is None:
                raise NotMeasurableError("the driver does not report the memory of each process")
            size: int = process.usedGpuMemory
            return size
    # The bytes of another process must not be returned instead.
    raise NotMeasurableError(
        "NVML does not list the id of this process (in a container it has another id)"
    )


def _uuid(device: torch.device) -> str:
    """Return the UUID of a device. NVML's own indices do not follow CUDA_VISIBLE_DEVICES."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


@contextmanager
def _answers() -> Iterator[Any]:
    """Yield the Python module of NVML, and convert its errors to reasons for the report."""
    try:
        import pynvml
    except ImportError as error:
        raise NotMeasurableError(
            "nvidia-ml-py is not installed: pip install 'seq2seq-harness[gpu]'"
        ) from error
    try:
        _initialise()
        yield pynvml
    except pynvml.NVMLError as error:
        raise NotMeasurableError(f"NVML says: {error}") from error


@cache
def _initialise() -> None:
    """Load the library once in this process, since loading takes longer than any request."""
    import pynvml

    pynvml.nvmlInit()
