"""The studies, and the recipes that each compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.api.plugins import Plugins
from study.recipes import planned, recipes

CHEAP = "lora_ff+lprun"
"""The paper's cheapest recipe, which the second study is to beat."""
_PAPER = ("full", CHEAP, "lprun", "lora_ff", "lora_qv", "lora_qv+lprun")
_OTHERS = (
    # Other layers are dropped, or what they did is folded into their neighbours.
    "lora_ff+lprun:select=importance",
    "lora_ff+lprun:select=angular",
    "lora_ff+lprun:select=loss",
    "lora_ff+lprun:heal=linear",
    "lora_ff+lprun:heal=linear,select=loss",
    # As many layers as lprun keeps of nano-t5, but fewer in the encoder.
    "lora_ff+lprun:decoder_keep=10,encoder_keep=6,select=loss",
    "lora_ff+lprun:decoder_keep=6,encoder_keep=10,select=loss",
    # More or other weights are trained.
    "lora:targets=all+lprun",
    "lora:plus=16,targets=all+lprun",
    "lora:targets=all+lprun:heal=linear,select=loss",
    "bitfit+lprun",
    # Narrower layers in place of fewer.
    "lora_ff+prune_ffn",
    "lora_ff+prune_heads",
    "lora:targets=all+prune_ffn",
)


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: its name on the command line.
        recipes: returns its recipes, those of most value first.
        adds_pruning: whether each recipe is trained with layer pruning too, at the learning rate
            that was found without.
    """

    name: str
    recipes: Callable[[Plugins], list[str]]
    adds_pruning: bool

    def planned(self, bare: Sequence[str], seeds: int, plugins: Plugins) -> list[tuple[str, int]]:
        """Return the recipe and the seed of each run.

        Args:
            bare: recipes of the study, without those that it makes of them by pruning.
            seeds: number of seeds.
            plugins: the plugins of this environment.
        """
        if self.adds_pruning:
            return planned(bare, seeds, plugins)
        return [(recipe, seed) for recipe in bare for seed in range(seeds)]


def cheaper(plugins: Plugins) -> list[str]:
    """Return the paper's recipes and those that may be better, in canonical form."""
    return [str(plugins.recipe(recipe)) for recipe in (*_PAPER, *_OTHERS)]


METHODS = Study("methods", recipes, adds_pruning=True)
CHEAPER = Study("cheaper", cheaper, adds_pruning=False)
STUDIES = {study.name: study for study in (METHODS, CHEAPER)}
