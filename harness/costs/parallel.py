"""Decides how several processes share a model: whole in each, or divided among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.api.recipe import Recipe
from harness.costs.fit import free_bytes
from harness.costs.memory_estimate import try_to_estimate
from harness.errors import HarnessError
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.training.parallel.obstacle import sharding_obstacle
from harness.training.parallel.sharding import NOTES
from harness.training.processes import Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.schedule import Step


@dataclass(frozen=True)
class Parallel:
    """The way in which several processes share a model.

    Attributes:
        kind: ``ddp`` if each holds it, ``fsdp`` if they divide it; None for a single process.
        notes: sentences for the report.
        too_large: the reason why one device cannot train it alone, if the estimate says so.
    """

    kind: Literal["ddp", "fsdp"] | None = None
    notes: tuple[str, ...] = ()
    too_large: str | None = None


def choose_parallel(run: ResolvedRun, longest: Step, processes: Processes) -> Parallel:
    """Choose how processes share a run's model.

    ``auto`` divides it if the estimated peak of one process is larger than the memory that is free
    on its device.

    Args:
        run: the run to train.
        longest: the step with the longest batch.
        processes: the processes; those of a machine without GPUs share its memory.

    Raises:
        HarnessError: the settings ask for what cannot be.
    """
    settings = run.spec.train
    if settings.cpu_offload and (processes.size == 1 or settings.parallel == "ddp"):
        raise HarnessError(
            "train.cpu_offload needs a model that is divided among several processes.",
            "Add --nproc 2 --set train.parallel=fsdp, or leave out train.cpu_offload.",
        )
    if processes.size == 1:
        return Parallel()
    context = skeleton_context(run.backbone, run.spec.seed)
    skeleton = compose(run.backbone.skeleton(), run.backbone, run.recipe, context)
    obstacle = sharding_obstacle(skeleton, run.backbone, run.recipe, settings)
    demanded = settings.parallel == "fsdp" or settings.cpu_offload
    if demanded and obstacle:
        raise _cannot_be_divided(run.recipe, obstacle)
    if settings.parallel == "ddp":
        return Parallel("ddp")
    # One process frees gradients at the end of a step, and DDP keeps room for all of them.
    buckets = 4 * sum(p.numel() for p in skeleton.parameters() if p.requires_grad)
    memory, _ = try_to_estimate(run, skeleton, processes.share(longest))
    free = free_bytes(run.device)
    if free is not None and run.device.type == "cpu":
        free //= processes.local_size
    too_large = None
    needed = memory.peak_bytes + buckets - memory.parts.gradients if memory else 0
    if free is not None and needed > free:
        too_large = (
            f"one process needs an estimated {needed / 2**30:.1f} GiB to train, and its "
            f"device has {free / 2**30:.1f} GiB free"
        )
    if demanded or (too_large and not obstacle):
        notes = [f"The model was divided: {too_large}."] if too_large and not demanded else []
        notes += [note.format(size=processes.size) for note in NOTES]
        return Parallel("fsdp", tuple(notes), too_large)
    if too_large:
        note = f"Although {too_large}, the model could not be divided: {obstacle}."
        return Parallel("ddp", (note,), None)
    return Parallel("ddp")


def _cannot_be_divided(recipe: Recipe, obstacle: str) -> HarnessError:
    return HarnessError(
        f"A model with the recipe {recipe} cannot be divided among processes: {obstacle}.",
        "--set train.parallel=ddp holds the whole model in each process.",
    )
