"""The capabilities of a recipe, found by applying it to a skeleton."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from harness.api.backbone import Backbone
from harness.api.compressor import Compressor
from harness.api.recipe import Recipe
from harness.errors import HarnessError, first_line
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.records.capabilities import Capabilities
from harness.training.engines.packed import packing_obstacle
from harness.training.packing import recipe_obstacle

_EVENTS = ("on_train_start", "on_step", "on_evaluate", "change_after")


def find_capabilities(backbone: Backbone, recipe: Recipe, seed: int = 0) -> Capabilities:
    """Apply a recipe to a skeleton and return what it can do.

    What a recipe needs is declared by its compressors. The harness gives nothing else, so that the
    declaration cannot leave anything out.

    Args:
        backbone: the backbone.
        recipe: the recipe to try.
        seed: the seed of the run that the skeleton stands for.
    """
    model = backbone.skeleton()
    plain = {name: type(module) for name, module in model.named_modules()}
    weights = {name for name, _ in model.named_parameters()}
    original = {id(parameter): parameter for parameter in model.parameters()}
    kind = type(model)
    model = compose(model, backbone, recipe, skeleton_context(backbone, seed))
    gone = original.keys() - {id(parameter) for parameter in model.parameters()}
    obstacle = packing_obstacle(model, backbone) or recipe_obstacle(recipe)
    formats = ["peft" for c in recipe.compressors if c.peft_config(model) is not None]
    shares = backbone.shared_beams and recipe.shares_beams and type(model) is kind
    obstacles = {"packs": obstacle} if obstacle else {}
    # Last, because merging changes the model.
    merges, why = _merges(model, recipe, plain, weights)
    if why:
        obstacles["merges"] = why
    return Capabilities(
        changes_structure=bool(gone),
        merges=merges,
        packs=obstacle is None,
        shares_beams=shares,
        acts_in_training=any(_overrides(c, *_EVENTS) for c in recipe.compressors),
        adds_to_loss=any(_overrides(c, "loss") for c in recipe.compressors),
        needs_data="data" in recipe.needs,
        needs_teacher="teacher" in recipe.needs,
        adapter_format="peft" if formats else None,
        obstacles=obstacles,
    )


def _merges(
    model: PreTrainedModel, recipe: Recipe, plain: dict[str, type[nn.Module]], weights: set[str]
) -> tuple[bool | None, str | None]:
    """Merge a composed skeleton; return whether only the backbone's modules are left, and why."""
    try:
        for compressor in reversed(recipe.compressors):
            model = compressor.merge(model)
    except HarnessError as error:
        return False, error.message
    except Exception as error:  # It may read values, which a skeleton does not have.
        return None, f"{type(error).__name__}: {first_line(error)}"
    for name, module in model.named_modules():
        if plain.get(name) is not type(module):
            return False, f"a module is left: {name or type(module).__name__}"
    for name, _ in model.named_parameters():
        if name not in weights:
            return False, f"a weight is left: {name}"
    return True, None


def _overrides(compressor: Compressor[Any], *methods: str) -> bool:
    return any(getattr(type(compressor), m) is not getattr(Compressor, m) for m in methods)
