"""The plan of a recipe: what it does to a backbone, computed before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.costs.memory_estimate import try_to_estimate
from harness.data.examples import Example
from harness.model.composition import ParameterCount, compose, count_parameters, kept_layers, layers
from harness.model.flops import training_flops
from harness.records.profile import BatchesOf, MemoryEstimate
from harness.records.record import Record
from harness.records.report import LayersKept, Parameters
from harness.spec.run_spec import RunSpec
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step
from harness.training.trainer import parameters_of

if TYPE_CHECKING:
    from harness.costs.batches import Batches


class Storage(Record):
    """Bytes on disk for several tasks: what is trained once a task, what is frozen once."""

    tasks: int
    """How many tasks."""
    base_bytes: int
    """Weights that all tasks share; none if every weight is trained."""
    bytes_per_task: int
    """Weights that each task has of its own."""
    total_bytes: int
    """tasks x bytes_per_task + base_bytes."""
    relative_to_full: float
    """total_bytes / those of full fine-tuning, which stores the whole backbone once a task."""


class Plan(Record):
    """Effect of a recipe on a backbone."""

    backbone: str
    """Its name."""
    recipe: str
    """In canonical form."""
    layers_kept: LayersKept
    """Transformer layers that are left."""
    parameters: Parameters
    """Numbers of parameters, in total and trained."""
    batches: BatchesOf | None
    """Batches that memory is planned for; null: all sources and targets of the lengths below."""
    why_no_data: str | None = None
    """Reason why the task's own data were not used; null if they were, or if there is no task."""
    source_tokens: int
    """Mean length of the sources for which the limit holds."""
    target_tokens: int
    """Mean length of the targets for which the limit holds."""
    flop_limit_relative_speed: float
    """FLOPs of a training step of full fine-tuning / those of the recipe: the relative speed if
    matrix products were all that takes time."""
    memory: MemoryEstimate | None
    """Peak memory in training; null if it cannot be estimated."""
    memory_unknown: str | None = None
    """Reason why it cannot be estimated; null if it can."""
    storage: Storage
    """What several tasks need on disk."""


def plan_recipes(
    backbone: Backbone,
    recipes: Sequence[Recipe],
    source_tokens: int = 512,
    target_tokens: int = 128,
    tasks: int = 4,
    spec: RunSpec | None = None,
    batches: Batches | None = None,
) -> list[Plan]:
    """Compose each recipe on a skeleton and count, without weights or a network.

    Args:
        backbone: the backbone.
        recipes: the recipes, each planned by itself.
        source_tokens: length of all sources, unless there are batches.
        target_tokens: length of all targets, unless there are batches.
        tasks: number of tasks that the storage is for.
        spec: the settings that memory depends on; its backbone and recipe are not read.
        batches: the batches that ``harness profile`` would measure on.
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

    def one(recipe: Recipe) -> Plan:
        model = backbone.skeleton()
        before = layers(model, backbone)
        model = compose(model, backbone, recipe)
        kept = kept_layers(before, layers(model, backbone))
        storage = _storage(count_parameters(model), tasks, tasks * original.total_bytes)
        flops = training_flops(model, source_tokens, target_tokens).total
        memory, unknown = try_to_estimate(resolve_run(spec, backbone, recipe), model, longest)
        return Plan(
            backbone=backbone.name,
            recipe=str(recipe),
            layers_kept=LayersKept(encoder=kept["encoder"], decoder=kept["decoder"]),
            parameters=parameters_of(model, original.total),
            batches=batches.of if batches else None,
            why_no_data=batches.why_no_data if batches else None,
            source_tokens=source_tokens,
            target_tokens=target_tokens,
            flop_limit_relative_speed=full_flops / flops,
            memory=memory,
            memory_unknown=unknown,
            storage=storage,
        )

    return [one(recipe) for recipe in recipes]


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
