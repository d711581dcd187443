"""The recipes of the study: one for each registered compressor, and variants of LoRA."""

from __future__ import annotations

from harness.api.plugins import Plugins
from harness.spec.run_spec import BASELINE

PRUNING = "lprun"
_CHOSEN = {
    # As lora_ff on a model without biases, so that it gets other layers here.
    "lora": "lora:targets=all",
    # It stands for any method of PEFT without a name of its own.
    "peft": "peft:type=lily",
}
"""Compressor -> its recipe, where the defaults are not the one to study."""
_VARIANTS = (
    "lora:dora=true,targets=all",
    "lora:init=pissa,targets=all",
    "lora:plus=16,targets=all",
)
_FIRST = (
    BASELINE,
    "lora_ff",
    "lora_qv",
    _CHOSEN["lora"],
    "ia3",
    "bitfit",
    *_VARIANTS,
    "adalora",
    "freeze",
    "houlsby",
    "pfeiffer",
    "vera",
    "prompt",
)
"""Recipes that most readers ask for, in the order of the study."""


def recipes(plugins: Plugins) -> list[str]:
    """Return the recipes without pruning, in canonical form, those of most value first.

    Args:
        plugins: the plugins of this environment. Only built-in compressors are studied.
    """
    own = plugins.compressors.find(BASELINE).origin.package
    names = [entry.name for entry in plugins.compressors if entry.origin.package == own]
    every = [_CHOSEN.get(name, name) for name in names if name != PRUNING]
    ordered = [*(r for r in _FIRST if r in {*every, *_VARIANTS}), *every]
    return [str(plugins.recipe(recipe)) for recipe in dict.fromkeys(ordered)]


def pruned(recipe: str, plugins: Plugins) -> str:
    """Return a recipe with layer pruning added, in canonical form.

    Raises:
        HarnessError: the two cannot be combined.
    """
    joined = PRUNING if recipe == BASELINE else f"{recipe}+{PRUNING}"
    return str(plugins.recipe(joined))
