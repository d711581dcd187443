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
    """Return what the device's energy counter shows.

    Raises:
        NotMeasurableError: it has none (before Volta), or NVML does not answer.
    """
    with _answers() as pynvml:
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        millijoules: int = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return millijoules / 1000


def process_bytes(device: torch.device) -> int:
    """Return the bytes of the device that this process holds, CUDA's own context included.

    Raises:
        NotMeasurableError: NVML does not say, as in most containers.
    """
    with _answers() as pynvml:
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    for process in processes:
        if process.pid == os.getpid():
            if process.usedGpuMemory is None:
                raise NotMeasurableError("the driver keeps no account of each process's memory")
            size: int = process.usedGpuMemory
            return size
    # Another process's bytes must not stand for this one's.
    raise NotMeasurableError(
        "NVML does not list this process under its number (in a container it has another one)"
    )


def _uuid(device: torch.device) -> str:
    """Return the name by which NVML finds a device: its numbers heed no CUDA_VISIBLE_DEVICES."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


@contextmanager
def _answers() -> Iterator[Any]:
    """Yield NVML's binding, and turn what it complains of into a reason."""
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
    """Load the library once for the life of the process: it takes longer than any answer."""
    import pynvml

    pynvml.nvmlInit()
