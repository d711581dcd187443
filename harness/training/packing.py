"""The packing of a recipe's sequences, which some compressors do not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.api.recipe import Recipe
    from harness.spec.setting_groups import EngineName

Packing = Literal["auto", "on", "off"]


def recipe_obstacle(recipe: Recipe) -> str | None:
    """Return the reason why a recipe keeps sequences from being packed, or None."""
    names = [compressor.name for compressor in recipe.compressors if not compressor.packs]
    return f"{names[0]} adds positions to each sequence" if names else None


def resolve_packing(engine: EngineName, recipe: Recipe) -> Packing:
    """Return whether an engine packs: ``auto`` if possible, ``on`` if it must, ``off`` if not.

    Args:
        engine: the setting ``train.engine``. Where layers cannot be compiled, it is as ``auto``.
        recipe: its compressors may not allow packing.

    Raises:
        HarnessError: the engine packs, and a compressor does not allow it.
    """
    obstacle = recipe_obstacle(recipe)
    may_pad = engine in ("auto", "compiled")
    if engine == "padded" or (may_pad and obstacle):
        return "off"
    if obstacle:
        raise HarnessError(
            f"The sequences of the recipe {recipe} cannot be packed: {obstacle}.",
            f"Leave out --set train.engine={engine}; batches are then padded.",
        )
    return "auto" if may_pad else "on"
