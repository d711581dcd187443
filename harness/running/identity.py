"""The id of a run: a hash of everything that could change its result."""

from __future__ import annotations

from typing import Any

import torch

from harness.api.plugins import Plugins
from harness.api.task import Task
from harness.data.hashing import code_hash
from harness.measurement.fingerprint import device_name, package_versions, processor
from harness.records.run_folder import run_id
from harness.training.resolved_run import ResolvedRun


def identity(
    run: ResolvedRun, task: Task[Any], data_sha256: str, plugins: Plugins, processes: int = 1
) -> str:
    """Return the id of a run: readable, and equal for two runs only if their results must be.

    Several spellings of one thing give one id: a folder counts by its files, a recipe by its
    canonical text, a preset by its settings, ``auto`` by what it stands for on this machine.
    Activation checkpointing counts as it was requested, since it changes no result.

    Args:
        run: the run, its micro-batches as requested.
        task: the spec's.
        data_sha256: hash of the texts of all splits.
        plugins: the plugins of this environment.
        processes: how many processes train together; the sums of several have another order, and
            each draws its own dropout.
    """
    backbone, device = run.backbone, run.device
    normalized = run.spec.model_copy(
        update={
            "backbone": backbone.version(),
            "recipe": str(run.recipe),
            "task": task.name,
            "preset": None,
        }
    )
    # A processor's sums depend on how many threads share them, and so do its measurements.
    machine = (
        device_name(device)
        if device.type == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    if processes > 1:
        machine += f" in each of {processes} processes"
    digest = normalized.digest(
        data_sha256,
        machine,
        *(f"{name} {version}" for name, version in package_versions().items()),
        *sorted(map(str, plugins.origins)),
        code_hash(plugins.manager.get_plugins()),
    )
    return run_id(backbone.name, str(run.recipe), task.name, run.spec.seed, digest)
