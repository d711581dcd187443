"""What a run is: everything that could change its result, as one hash."""

from __future__ import annotations

from typing import Any

import torch

from harness.api.backbone import Backbone
from harness.api.plugins import Plugins
from harness.api.recipe import Recipe
from harness.api.task import Task
from harness.data.hashing import code_hash
from harness.measurement.fingerprint import device_name, package_versions, processor
from harness.records.run_folder import run_id
from harness.spec.run_spec import RunSpec
from harness.training.trainer import choose_device, choose_dtype


def identity(
    spec: RunSpec,
    backbone: Backbone,
    recipe: Recipe,
    task: Task[Any],
    data_sha256: str,
    plugins: Plugins,
    processes: int = 1,
) -> str:
    """Return the id of a run: readable, and equal for two runs only if their results must be.

    What is spelt in several ways counts by what it stands for: a folder by its files, a recipe by
    its canonical text, a preset by its settings, ``auto`` by what it comes to on this machine.

    Args:
        spec: resolved.
        backbone: the spec's.
        recipe: the spec's.
        task: the spec's.
        data_sha256: hash of the texts of all splits.
        plugins: what there is.
        processes: that train together; they add up in another order, and draw other dropout.
    """
    device = choose_device(spec.device)
    dtype = str(choose_dtype(spec.train.precision, device, backbone)).removeprefix("torch.")
    spelt_out = spec.model_copy(
        update={
            "backbone": backbone.version(),
            "recipe": str(recipe),
            "task": task.name,
            "preset": None,
            "device": device.type,
            "train": spec.train.model_copy(update={"precision": dtype}),
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
    digest = spelt_out.digest(
        data_sha256,
        machine,
        *(f"{name} {version}" for name, version in package_versions().items()),
        *sorted(map(str, plugins.origins)),
        code_hash(plugins.manager.get_plugins()),
    )
    return run_id(backbone.name, str(recipe), task.name, spec.seed, digest)
