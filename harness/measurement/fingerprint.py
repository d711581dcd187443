"""Fingerprint of the machine and its software, on which speed and memory depend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

import harness
from harness.records.measurements import Fingerprint
from harness.records.reasons import HasReasons, explain_nulls

_PACKAGES = ("torch", "transformers", "peft")
_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "DNNL_MAX_CPU_ISA",
    "LD_PRELOAD",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that change how libraries compute or allocate memory."""


def fingerprint(device: torch.device, dtype: torch.dtype, attention: str) -> Fingerprint:
    """Describe this machine and its software.

    Args:
        device: the device of the model.
        dtype: the data type of matrix products.
        attention: the attention implementation.
    """
    return Fingerprint(
        device=device_name(device),
        driver=_driver() if device.type == "cuda" else None,
        cpu=processor(),
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            **package_versions(),
            **_cuda_versions(device),
            "harness": harness.__version__,
        },
        dtype=str(dtype).removeprefix("torch."),
        matmul_precision=torch.get_float32_matmul_precision(),
        attention=_with_backend(attention, device),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        git=git_state(),
    )


def _with_backend(attention: str, device: torch.device) -> str:
    """Add whether PyTorch may choose cuDNN's kernels; only CUDA has them."""
    if device.type != "cuda":
        return attention
    on = torch.backends.cuda.cudnn_sdp_enabled()
    return f"{attention}; cuDNN {'on' if on else 'off'}"


def _cuda_versions(device: torch.device) -> dict[str, str]:
    """Return the versions of CUDA and cuDNN that torch uses on the device; none on a CPU."""
    if device.type != "cuda":
        return {}
    cudnn = torch.backends.cudnn.version()
    versions = {"cuda": torch.version.cuda, "cudnn": cudnn}
    return {name: str(version) for name, version in versions.items() if version is not None}


class HasFingerprint(HasReasons, Protocol):
    """A record with a fingerprint of the machine."""

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint, or None if the run did not reach it."""


def explain_no_driver(record: HasFingerprint) -> None:
    """Give the reason why the fingerprint of a record names no driver, if it names none."""
    on_cpu = record.fingerprint is not None and record.fingerprint.device == "cpu"
    reason = "a CPU has none" if on_cpu else "nvidia-smi does not answer"
    explain_nulls(record, reason, "fingerprint.driver")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that compute."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def git_state() -> str | None:
    """Return the commit of the harness's own checkout, or None outside of one.

    If the checkout is changed, ``+dirty.`` and a hash of the changes follow, so that different
    checkouts have different states.
    """
    folder = Path(harness.__file__).parent
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    # An installed package may lie inside the checkout of another project.
    if not commit or not _output(["git", "-C", str(folder), "ls-files", harness.__file__]):
        return None
    changes = _output(["git", "-C", str(folder), "diff", "--binary", "HEAD"])
    return commit + (f"+dirty.{sha256(changes.encode()).hexdigest()[:8]}" if changes else "")


def _driver() -> str | None:
    fields = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return _output(fields).partition("\n")[0] or None


def device_name(device: torch.device) -> str:
    """Return the name of an accelerator, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def processor() -> str:
    """Return the model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(command: list[str]) -> str:
    """Return what a command prints, or nothing if it cannot be run or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
