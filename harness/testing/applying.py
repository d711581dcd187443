"""Checks of what a compressor makes of a model: counts, seeds, and weights that restore it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.model.composition import compose, count_parameters
from harness.model.contexts import skeleton_context
from harness.testing.result import CheckFailedError, DoesNotApplyError
from harness.testing.runner import Check
from harness.testing.subject import SEED, Subject, largest_difference, logits, perturb, trained
from harness.training.trained_weights import load_weights, save_weights


def counts(subject: Subject) -> float:
    """Compare the parameters of a skeleton with those of real weights."""
    backbone, recipe = subject.backbone, subject.recipe()
    skeleton = compose(backbone.skeleton(), backbone, recipe, skeleton_context(backbone, SEED))
    real = [name for name, p in skeleton.named_parameters() if not p.is_meta]
    if real:
        raise CheckFailedError(
            f"{len(real)} parameters of a skeleton have values, the first of them {real[0]!r}; "
            "add them on the meta device where context.skeleton is true"
        )
    for compressor in recipe.compressors:
        cost = compressor.cost(skeleton, 12, 8)
        if not all(math.isfinite(n) and n >= 0 for n in vars(cost).values()):
            raise CheckFailedError(f"its cost is {cost}", "cost")
    model = subject.model()
    one, other = _shapes(skeleton), _shapes(model)
    if one != other:
        different = sorted(
            name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
        )
        raise CheckFailedError(
            f"{len(different)} parameters of a skeleton and of real weights differ, the first of "
            f"them {different[0]!r}: {one.get(different[0])} and {other.get(different[0])}"
        )
    counted, real_count = count_parameters(skeleton), count_parameters(model)
    return float(abs(counted.trainable - real_count.trainable))


def _shapes(model: PreTrainedModel) -> dict[str, tuple[tuple[int, ...], bool]]:
    return {n: (tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()}


def same_seed(subject: Subject) -> float:
    """Apply the recipe twice with the same seed."""
    one, other = _tensors(subject.model()), _tensors(subject.model())
    if one.keys() != other.keys():
        raise CheckFailedError("two models of the same seed have different weights")
    return max((largest_difference(t, other[n]) for n, t in one.items()), default=0.0)


def other_seed(subject: Subject) -> None:
    """Apply the recipe with two seeds to the same weights, and with one seed to others."""
    plain = set(_tensors(subject.backbone.load("random")))
    one = _added(subject.model(), plain)
    # Constants and permutations have two values at most, and indices are integers.
    random = {n: t for n, t in one.items() if t.is_floating_point() and t.unique().numel() > 2}
    if not random:
        raise DoesNotApplyError("it adds no random numbers")
    if _differ(random, _added(subject.model(SEED + 1), plain)):
        return
    tiny = type(subject.backbone)
    seeded = getattr(tiny, "weights_seed", None)
    if seeded is None:
        raise DoesNotApplyError("its numbers may come from the weights")
    other = tiny(subject.backbone.reference)
    other.weights_seed = seeded + 1  # type: ignore[attr-defined]
    elsewhere = Subject(other, subject.name, subject.text, subject.registry, subject.folder)
    if _differ(random, _added(elsewhere.model(), plain)):
        raise DoesNotApplyError("its numbers come from the weights")
    raise CheckFailedError(
        f"{next(iter(random))!r} holds the same numbers whatever the seed; draw them from "
        "context.generator"
    )


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    buffers = dict(model.named_buffers())
    return {**dict(model.named_parameters()), **buffers}


def _added(model: PreTrainedModel, plain: set[str]) -> dict[str, Tensor]:
    present = {name.replace(".base_layer", "") for name in plain} | plain
    return {
        n: t.detach()
        for n, t in _tensors(model).items()
        if n.replace(".base_layer", "") not in present
    }


def _differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(n not in other or not torch.equal(t, other[n]) for n, t in one.items())


def weights_restore(subject: Subject) -> float:
    """Rebuild the model from the seed and the trained weights, as an export does."""
    model = subject.model()
    perturb(model)
    save_weights(trained(model), subject.folder)
    rebuilt = subject.model()
    load_weights(trained(rebuilt), subject.folder)
    return largest_difference(logits(model), logits(rebuilt))


APPLYING = [
    Check("applies to shapes and to weights alike", "apply", counts, 0.0),
    Check("the same seed gives the same weights", "apply", same_seed, 0.0),
    Check("another seed gives other weights", "apply", other_seed),
    Check("the trained weights restore the model", "apply", weights_restore, 0.0),
]
