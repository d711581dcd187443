"""What memory there is, whether training fits in what is free, and what to do where not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.costs.memory_estimate import try_to_estimate
from harness.model.composition import compose
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Step
from harness.training.trainer import choose_device

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


HEADROOM = 3 * 2**29
"""Bytes of a CUDA device that are left free beside predicted tensors: for the contexts of two
processes, kernels, workspaces of libraries, and pieces that are too small to be used."""


def resolve_checkpointing(
    spec: RunSpec, backbone: Backbone, recipe: Recipe, longest: Step
) -> RunSpec:
    """Return the spec with ``train.checkpointing=auto`` settled as on or off.

    It is on only where the predicted peak is more than the memory that is free. What cannot be
    predicted is left off.

    Args:
        spec: any.
        backbone: the spec's.
        recipe: the spec's.
        longest: the step with the longest batch.
    """
    if spec.train.checkpointing != "auto":
        return spec
    kept = _with(spec, "off")
    skeleton = compose(backbone.skeleton(), backbone, recipe)
    memory, _ = try_to_estimate(kept, backbone, recipe, skeleton, longest)
    free = free_bytes(choose_device(spec.device))
    if memory is None or free is None or memory.peak_bytes <= free:
        return kept
    return _with(spec, "on")


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free for training, or None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(free - HEADROOM, 0)
    return _meminfo("MemAvailable")


def total_bytes(device: torch.device) -> int | None:
    """Return all the memory that training may take, on an empty device, if that is known.

    On a CPU it is what this process is allowed, on CUDA what the device has less ``HEADROOM``.
    Makes no use of the device, which would take some of it.
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


def _with(spec: RunSpec, checkpointing: str) -> RunSpec:
    train = spec.train.model_copy(update={"checkpointing": checkpointing})
    return spec.model_copy(update={"train": train})
