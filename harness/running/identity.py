"""Id of a run: a hash of everything that could change its result."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import torch

from harness.api.plugins import Plugins
from harness.api.task import Task
from harness.data.hashing import code_hash
from harness.measurement.fingerprint import device_name, package_versions, processor
from harness.records.run_folder import run_id
from harness.training.resolved_run import ResolvedRun
from harness.training.teacher_model import find_teacher

DIVISION_DIGITS = 4
"""Last digits of an id: a hash of the number of processes, and on a CPU of their threads. Runs
whose ids differ only in these digits do the same work, divided differently."""


def identity(
    run: ResolvedRun,
    task: Task[Any],
    data_sha256: str,
    plugins: Plugins,
    processes: int = 1,
    threads: int | None = None,
) -> str:
    """Return the id of a run: readable, and equal for two runs only if their results must be.

    Different spellings of the same run give the same id: a folder counts by its files (a teacher's
    too), a recipe by its canonical text, a preset by its settings, ``auto`` by its meaning on this
    machine. The requested value of activation checkpointing counts, since it changes no result.

    Args:
        run: the run, with the requested micro-batches.
        task: the task that the spec names.
        data_sha256: the hash of the texts of all splits.
        plugins: the plugins of this environment.
        processes: the number of processes that train together. It changes the order of sums, and
            each process draws its own dropout. It counts in the last ``DIVISION_DIGITS`` only.
        threads: the number of threads of each; None for those of this process.
    """
    backbone, device = run.backbone, run.device
    teacher = find_teacher(run.recipe)
    files = {teacher.reference: teacher.version()} if teacher else {}
    normalized = run.spec.model_copy(
        update={
            "backbone": backbone.version(),
            "recipe": run.recipe.text(files),
            "task": task.name,
            "preset": None,
        }
    )
    on_gpu = device.type == "cuda"
    division = f"{processes} processes"
    if not on_gpu:
        # Sums and measurements on a processor depend on the number of threads.
        division += f" of {threads or torch.get_num_threads()} threads"
    digest = normalized.digest(
        data_sha256,
        device_name(device) if on_gpu else processor(),
        *(f"{name} {version}" for name, version in package_versions().items()),
        *sorted(map(str, plugins.origins)),
        code_hash(plugins.packaged),
        *sorted(f"{file.name} {file.sha256}" for file in plugins.files),
    )
    last = sha256(division.encode()).hexdigest()[:DIVISION_DIGITS]
    shown = run.recipe.text({name: sha256(v.encode()).hexdigest()[:8] for name, v in files.items()})
    name = digest[:-DIVISION_DIGITS] + last
    return run_id(backbone.name, shown, task.name, run.spec.seed, name)
