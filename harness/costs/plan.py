"""Plan of a recipe: its effect on a backbone, computed before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.costs.capabilities import find_capabilities
from harness.costs.memory_estimate import try_to_estimate
from harness.costs.parallel_estimate import estimate_parallel
from harness.data.examples import Example
from harness.model.composition import ParameterCount, compose, count_parameters, kept_layers, layers
from harness.model.contexts import skeleton_context
from harness.model.flops import recipe_flops, training_flops
from harness.records.capabilities import Capabilities
from harness.records.profile import BatchesOf, MemoryEstimate, ParallelEstimate
from harness.records.record import Record
from harness.records.report import LayersKept, Parameters
from harness.spec.run_spec import RunSpec
from harness.training.build import parameters_of
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step
from harness.training.teacher_model import teacher_skeleton

if TYPE_CHECKING:
    from harness.costs.batches import Batches


DEVICE_BYTES = 80 * 10**9
"""Memory of a device that is planned for, unless another is named."""


class Storage(Record):
    """Bytes on disk for several tasks: trained weights once for each task, frozen weights once."""

    tasks: int
    """Number of tasks."""
    base_bytes: int
    """Bytes of the frozen weights, which all tasks share; 0 if every weight is trained."""
    bytes_per_task: int
    """Bytes of the trained weights, which each task has of its own."""
    total_bytes: int
    """tasks x bytes_per_task + base_bytes."""
    relative_to_full: float
    """total_bytes / that of full fine-tuning, which stores the whole backbone for each task."""


class Plan(Record):
    """Effect of a recipe on a backbone."""

    backbone: str
    """Name of the backbone."""
    recipe: str
    """Recipe in canonical form."""
    layers_kept: LayersKept
    """Transformer layers that the recipe keeps."""
    parameters: Parameters
    """Numbers of parameters, in total and trained."""
    batches: BatchesOf | None
    """Origin of the batches; null if all sources and targets have the lengths below."""
    why_no_data: str | None = None
    """Reason why the task's own data were not used; null if they were, or if there is no task."""
    data_notes: list[str] = Field(default_factory=list)
    """Sentences on what was guessed, left out and truncated in the task's own data."""
    source_tokens: int
    """Mean length of the sources in tokens, for which the FLOP limit is computed."""
    target_tokens: int
    """Mean length of the targets in tokens, for which the FLOP limit is computed."""
    flop_limit_relative_speed: float
    """FLOPs of a training step of full fine-tuning / FLOPs of one of the recipe. The relative speed
    would reach it if only matrix products took time."""
    memory: MemoryEstimate | None
    """Estimated peak memory of training; null if it cannot be estimated."""
    memory_unknown: str | None = None
    """Reason why memory cannot be estimated; null if it can."""
    parallel: ParallelEstimate | None = None
    """Memory and exchanges of several processes that train together; null for one process, or if
    memory cannot be estimated."""
    storage: Storage
    """Bytes on disk for several tasks."""
    capabilities: Capabilities
    """Capabilities of the recipe on the backbone, found by trying it on shapes."""


def plan_recipes(
    backbone: Backbone,
    recipes: Sequence[Recipe],
    source_tokens: int = 512,
    target_tokens: int = 128,
    tasks: int = 4,
    spec: RunSpec | None = None,
    batches: Batches | None = None,
    processes: int = 1,
    device_bytes: int = DEVICE_BYTES,
) -> list[Plan]:
    """Apply each recipe to a skeleton and compute its costs, without weights or a network.

    Args:
        backbone: the backbone that the recipes are applied to.
        recipes: the recipes, each planned by itself.
        source_tokens: length of all sources; not read if there are batches.
        target_tokens: length of all targets; not read if there are batches.
        tasks: number of tasks that storage is computed for.
        spec: the settings that memory depends on; its backbone and recipe are not read.
        batches: the batches that ``harness profile`` would measure on.
        processes: number of processes that train together.
        device_bytes: memory of the device of each process.
    """
    spec = spec or RunSpec()
    if batches is None:
        longest = _step(spec, source_tokens, target_tokens)
    else:
        longest = batches.frozen.longest
        source_tokens = round(batches.frozen.mean_source_tokens)
        target_tokens = round(batches.frozen.mean_target_tokens)
    skeleton = backbone.skeleton()
    original = count_parameters(skeleton)
    full_flops = training_flops(skeleton, source_tokens, target_tokens).total

    def plan_one(recipe: Recipe) -> Plan:
        model = backbone.skeleton()
        all_layers = layers(model, backbone)
        model = compose(model, backbone, recipe, skeleton_context(backbone, spec.seed))
        kept = kept_layers(all_layers, layers(model, backbone))
        storage = _storage(count_parameters(model), tasks, tasks * original.total_bytes)
        flops = recipe_flops(
            model, backbone, recipe, source_tokens, target_tokens, teacher_skeleton(recipe)
        )
        run = resolve_run(spec, backbone, recipe)
        memory, unknown = try_to_estimate(run, model, longest)
        parallel = None
        if processes > 1 and memory is not None:
            parallel = estimate_parallel(run, longest, processes, device_bytes)
        return Plan(
            backbone=backbone.name,
            recipe=str(recipe),
            layers_kept=LayersKept(encoder=kept["encoder"], decoder=kept["decoder"]),
            parameters=parameters_of(model, original.total),
            batches=batches.of if batches else None,
            why_no_data=batches.why_no_data if batches else None,
            data_notes=list(batches.data_notes) if batches else [],
            source_tokens=source_tokens,
            target_tokens=target_tokens,
            flop_limit_relative_speed=full_flops / flops,
            memory=memory,
            memory_unknown=unknown,
            parallel=parallel,
            storage=storage,
            capabilities=find_capabilities(backbone, recipe, spec.seed),
        )

    return [plan_one(recipe) for recipe in recipes]


def _step(spec: RunSpec, source_tokens: int, target_tokens: int) -> Step:
    example = Example([1] * source_tokens, [1] * target_tokens)
    return Step(((example,) * spec.train.batch_size,) * spec.train.accumulation)


def _storage(count: ParameterCount, tasks: int, full_bytes: int) -> Storage:
    base = count.total_bytes - count.trainable_bytes
    total = tasks * count.trainable_bytes + base
    return Storage(
        tasks=tasks,
        base_bytes=base,
        bytes_per_task=count.trainable_bytes,
        total_bytes=total,
        relative_to_full=total / full_bytes,
    )
