"""Checks of a compressor in training, by the harness's own loop and engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.api.teacher import ORIGINAL
from harness.testing.families import EXAMPLES
from harness.testing.result import CheckFailedError, DoesNotApplyError
from harness.testing.runner import Check
from harness.testing.subject import RATE, STEPS, Subject, largest_difference, perturb, trained
from harness.training.build import load_trainer
from harness.training.engines.packed import packing_obstacle
from harness.training.packing import recipe_obstacle
from harness.training.trainer import Trainer

_KILLED_AFTER = 3
"""Step between the two evaluations, after the first weights were kept."""


def trains_what_it_says(subject: Subject) -> float:
    """Compare all weights before and after a training."""
    training = subject.training
    chosen = training.trainer.trained
    frozen = [n for n in training.before if n not in chosen]
    drift = max((_change(training.before[n], training.last[n]) for n in frozen), default=0.0)
    still = [n for n in chosen if n not in training.moved]
    if still:
        raise CheckFailedError(
            f"{len(still)} of {len(chosen)} trained parameters do not change, the first of them "
            f"{still[0]!r}; the loss does not depend on them"
        )
    if drift:
        raise CheckFailedError(
            "a frozen parameter changes in training", "on_step", difference=drift
        )
    return drift


def _change(before: Tensor, after: Tensor) -> float:
    return float((after - before).abs().max()) if before.numel() else 0.0


def loss_falls(subject: Subject) -> float:
    """Return by how much the objective falls in a few steps."""
    first, *others = subject.training.losses
    if min(others) < first:
        return first - min(others)
    teacher = subject.recipe().teacher
    if teacher is not None and teacher.weights == ORIGINAL:
        raise DoesNotApplyError("it begins as its teacher, where the objective is near its lowest")
    raise CheckFailedError(
        f"the objective is {first:.5g} at first and at least {min(others):.5g} in {STEPS} steps "
        f"with a learning rate of {RATE:g}",
        "loss",
    )


def resumed(subject: Subject) -> float:
    """Kill a training in a step, go on in a new trainer, and compare with an undisturbed one."""
    whole = subject.training
    subject.train("killed", killed_after=_KILLED_AFTER)
    later = subject.train("killed")
    difference = max(
        (_change(whole.last[n], later.last[n]) for n in whole.trainer.trained), default=0.0
    )
    if whole.history != later.history:
        raise CheckFailedError(
            "a training that was killed and resumed has another history; return from state_dict "
            "all that changes in the compressor",
            "state_dict",
            difference,
        )
    return difference


def packed(subject: Subject) -> float:
    """Compare loss and gradients of a packed row with those of a padded batch."""
    recipe = subject.recipe()
    obstacle = recipe_obstacle(recipe) or packing_obstacle(subject.model(), subject.backbone)
    if obstacle:
        raise DoesNotApplyError(obstacle)
    trainers = [load_trainer(subject.run(packing=packing)) for packing in ("off", "on")]
    for trainer in trainers:
        trainer.model.eval()
        perturb(trainer.model)
    return _compare(*(_gradients(trainer) for trainer in trainers))


def checkpointed(subject: Subject) -> float:
    """Compare loss and gradients with and without activation checkpointing, with dropout."""
    results = []
    for checkpointing in ("off", "on"):
        trainer = load_trainer(subject.run(checkpointing=checkpointing))
        trainer.model.train()
        perturb(trainer.model)
        torch.manual_seed(3)
        results.append(_gradients(trainer))
    return _compare(*results)


def _gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Return the loss and the gradient of each trained weight, on all examples."""
    batch = trainer.engine.collate(EXAMPLES)
    loss: Any = trainer.objective.loss_sum(trainer.model, batch) / batch.target_tokens
    loss.backward()
    weights = trained(trainer.model)
    missing = [name for name, p in weights.items() if p.grad is None]
    if missing:
        raise CheckFailedError(f"{missing[0]!r} is trained and gets no gradient")
    found = {name: p.grad.detach() for name, p in weights.items() if p.grad is not None}
    return {"the loss": loss.detach(), **found}


def _compare(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference, relative to the largest gradient of all."""
    if one.keys() != other.keys():
        raise CheckFailedError("other weights are trained")
    loss = largest_difference(one.pop("the loss"), other.pop("the loss"))
    scale = max(float(t.abs().max()) for t in one.values())
    worst = max(float((t - other[n]).abs().max()) for n, t in one.items())
    return max(loss, worst / scale if scale else worst)


TRAINING = [
    Check("trains exactly what it says", "apply", trains_what_it_says, 0.0),
    Check("the loss falls", "apply", loss_falls),
    Check("a killed training resumes identically", "state_dict", resumed, 0.0),
    Check("packed rows equal padded batches", "loss", packed, 1e-4),
    Check("activation checkpointing changes nothing", "apply", checkpointed, 1e-6),
]
