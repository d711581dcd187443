"""The recipes of the study: one for each registered compressor, and variants of LoRA."""

from __future__ import annotations

from collections.abc import Sequence

from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.spec.run_spec import BASELINE

PRUNING = "lprun"
_CHOSEN = {
    # As lora_ff on a model without biases, so that it gets other layers here.
    "lora": "lora:targets=all",
    # It stands for any method of PEFT without a name of its own.
    "peft": "peft:type=lily",
    # They train nothing alone.
    "int8": "lora_ff+int8",
    "nf4": "lora_ff+nf4",
}
"""Compressor -> its recipe, where the defaults are not the one to study."""
_LEFT_OUT = {PRUNING, "distill", "cache_encoder"}
"""Pruning is added to each recipe. A stored encoder changes the cost of a recipe only. A teacher
that knows the task would be another run of the study, and one that does not teaches nothing."""
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
    every = [_CHOSEN.get(name, name) for name in names if name not in _LEFT_OUT]
    ordered = [*(r for r in _FIRST if r in {*every, *_VARIANTS}), *every]
    return [str(plugins.recipe(recipe)) for recipe in dict.fromkeys(ordered)]


def pruned(recipe: str, plugins: Plugins) -> str:
    """Return a recipe with layer pruning added, in canonical form.

    Raises:
        HarnessError: the two cannot be combined.
    """
    joined = PRUNING if recipe == BASELINE else f"{recipe}+{PRUNING}"
    return str(plugins.recipe(joined))


def planned(bare: Sequence[str], seeds: int, plugins: Plugins) -> list[tuple[str, int]]:
    """Return the recipe and the seed of each run of the study.

    Args:
        bare: recipes without pruning, in canonical form.
        seeds: number of seeds.
        plugins: the plugins of this environment.
    """
    every = list(bare)
    for recipe in bare:
        try:
            every.append(pruned(recipe, plugins))
        except HarnessError:  # The runner writes the reason down.
            continue
    return [(recipe, seed) for recipe in every for seed in range(seeds)]
