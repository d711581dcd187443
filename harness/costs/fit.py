"""Check whether training fits in free memory; decide on activation checkpointing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from harness.costs.memory_estimate import try_to_estimate
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.training.resolved_run import ResolvedRun
from harness.training.schedule import Step

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

HEADROOM = 3 * 2**29
"""Bytes of a CUDA device that stay free beside the estimated tensors: for the contexts of two
processes, kernels, workspaces of libraries, and fragments that are too small to use."""


def resolve_checkpointing(run: ResolvedRun, longest: Step) -> ResolvedRun:
    """Return the run with ``train.checkpointing=auto`` resolved to on or off.

    It is on only if the estimated peak is larger than the free memory. It is off if there is no
    estimate.

    Args:
        run: the run to train.
        longest: the step with the longest batch.
    """
    if run.spec.train.checkpointing != "auto":
        return run
    context = skeleton_context(run.backbone, run.spec.seed)
    skeleton = compose(run.backbone.skeleton(), run.backbone, run.recipe, context)
    memory, _ = try_to_estimate(run, skeleton, longest)
    free = free_bytes(run.device)
    fits = memory is None or free is None or memory.peak_bytes <= free
    return run.with_checkpointing("off" if fits else "on")


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free for training, or None if the system does not report it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(free - HEADROOM, 0)
    return _meminfo("MemAvailable")


def total_bytes(device: torch.device) -> int | None:
    """Return the memory that training may take on an empty device, or None if it is unknown.

    On a CPU it is the limit of this process, on CUDA the device's memory less ``HEADROOM``. The
    device is not used, which would take some of its memory.
    """
    if device.type == "cuda":
        total: int = torch.cuda.get_device_properties(device).total_memory
        return max(total - HEADROOM, 0)
    limits = [_meminfo("MemTotal")]
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # Not there, or "max".
            limits.append(int(path.read_text()))
    return min((limit for limit in limits if limit is not None), default=None)


def _meminfo(field: str) -> int | None:
    if not _MEMINFO.is_file():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
