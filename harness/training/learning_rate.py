"""The learning rate over a training: a warm-up, then one of transformers' schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.api.compressor import Compressor, Stage

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from harness.api.recipe import Recipe
    from harness.spec.setting_groups import TrainSettings


def peak_learning_rate(settings: TrainSettings, recipe: Recipe) -> float:
    """Return the peak learning rate of a recipe.

    Args:
        settings: the rates that hold for all recipes.
        recipe: its adapters have rates of their own; the lowest counts.
    """
    if settings.tuned_learning_rate is not None:
        return settings.tuned_learning_rate
    adapters = [c.learning_rate for c in recipe.compressors if c.stage is Stage.ADAPTER]
    own = [rate for rate in adapters if rate != "full"]
    if not own:
        return settings.learning_rate
    if settings.adapter_learning_rate is not None:
        return settings.adapter_learning_rate
    return min(settings.default_adapter_learning_rate if r is None else r for r in own)


def peak_notes(settings: TrainSettings, compressors: Iterable[Compressor[Any]]) -> list[str]:
    """Return a note on a rate that was chosen, or on each compressor that has a documented one."""
    if settings.tuned_learning_rate is not None:
        return [
            "The peak learning rate was chosen for each recipe by itself "
            "(train.tuned_learning_rate)."
        ]
    if settings.adapter_learning_rate is not None:
        return []
    return [
        f"{c.name} has a documented peak learning rate of {c.learning_rate:g}, which is used "
        "unless train.adapter_learning_rate is set."
        for c in compressors
        if c.stage is Stage.ADAPTER and isinstance(c.learning_rate, float)
    ]


def warmup_steps(settings: TrainSettings, planned: int) -> int:
    """Return the number of warm-up steps, counted as in transformers.

    Args:
        settings: hold the warm-up in steps (1 or more), or as a share of the training (below 1).
        planned: optimizer steps of the training.
    """
    requested = settings.warmup_steps
    return int(requested) if requested >= 1 else math.ceil(planned * requested)


def learning_rate_schedule(
    optimizer: Optimizer, settings: TrainSettings, planned: int
) -> LRScheduler:
    """Return transformers' schedule of the settings' name over ``planned`` optimizer steps."""
    from transformers import get_scheduler

    schedule: LRScheduler = get_scheduler(
        settings.scheduler, optimizer, warmup_steps(settings, planned), planned
    )
    return schedule


def continued_schedule(
    before: LRScheduler, optimizer: Optimizer, settings: TrainSettings, planned: int
) -> LRScheduler:
    """Return a schedule for a new optimizer, at the step that an earlier schedule has reached.

    Args:
        before: the earlier schedule.
        optimizer: the new optimizer, which has not stepped.
        settings: the settings of both schedules.
        planned: optimizer steps of the training.
    """
    schedule: Any = learning_rate_schedule(optimizer, settings, planned)
    schedule.last_epoch = before.last_epoch
    schedule._step_count = before._step_count
    rates = [
        base * factor(before.last_epoch)
        for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
    after: LRScheduler = schedule
    return after


def highest_rates(optimizer: Optimizer, highest_rate: float) -> dict[str, float]:
    """Return the highest learning rate of each group that has its own: name -> rate.

    Args:
        optimizer: the optimizer after the training.
        highest_rate: the highest rate of the first group. The schedule is the same for all.
    """
    groups = optimizer.param_groups
    peak = groups[0]["initial_lr"]
    share = highest_rate / peak if peak else 1.0
    return {g["name"]: g["initial_lr"] * share for g in groups if "name" in g}


def rate_notes(rates: Mapping[str, float]) -> list[str]:
    """Return a note on each group of parameters with a learning rate of its own."""
    return [
        f"The parameters {name} were trained with a learning rate of up to {rate:.3g}."
        for name, rate in rates.items()
    ]


def warmup_notes(settings: TrainSettings, planned: int) -> list[str]:
    """Return a note if the warm-up is as long as the training or longer, else nothing."""
    steps = warmup_steps(settings, planned)
    if settings.scheduler == "constant" or steps < planned:
        return []
    reached = 100 * (planned - 1) / steps
    return [
        f"The warm-up of {steps:,} steps is not over when the training of {planned:,} ends: the "
        f"learning rate only reaches {reached:.1f} % of its peak. To set the warm-up as a share "
        "of the training: --set train.warmup_steps=0.1"
    ]
