"""The packing of a recipe's sequences, which some compressors do not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.api.recipe import Recipe

Packing = Literal["auto", "on", "off"]


def recipe_obstacle(recipe: Recipe) -> str | None:
    """Return the reason why a recipe keeps sequences from being packed, or None."""
    names = [compressor.name for compressor in recipe.compressors if not compressor.packs]
    return f"{names[0]} adds positions to each sequence" if names else None


def resolve_packing(requested: Packing, recipe: Recipe) -> Packing:
    """Return the requested packing, or ``off`` if a compressor does not allow it.

    Raises:
        HarnessError: packing is demanded and a compressor does not allow it.
    """
    obstacle = recipe_obstacle(recipe)
    if obstacle is None:
        return requested
    if requested == "on":
        raise HarnessError(
            f"The sequences of the recipe {recipe} cannot be packed: {obstacle}.",
            "Leave out --set train.packing=on; batches are then padded.",
        )
    return "off"
