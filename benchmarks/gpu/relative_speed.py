"""Step 1: speed and memory of each recipe relative to full fine-tuning, as in the paper.

The measurement is that of ``harness profile``: windows of each recipe and of full fine-tuning run
in turn, on equal batches.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gpu.requests import print_requests
from gpu.step import StepResult, run_step

RECIPES = ("lora_ff+lprun", "lora_ff", "lprun", "lora_qv+lprun", "full")
"""Recipes, the most informative first in case time runs out. Full fine-tuning is measured beside
each of them; its own row adds nothing but the ratio of equal code."""
FULL_LENGTH = "512/128"
"""Every source and target has this many tokens."""
OWN_LENGTHS = "mimic_radiology"
"""Task around whose mean lengths other lengths are drawn."""


@dataclass(frozen=True)
class Workload:
    """Workload that recipes are compared on.

    Attributes:
        backbone: registered name of the backbone; its weights are random.
        lengths: ``FULL_LENGTH``, or the name of a task.
        batch: examples per step.
        recipes: recipes in the order of measurement.
        steps: optimizer steps per window.
        rounds: rounds of four windows each.
    """

    backbone: str
    lengths: str
    batch: int = 8
    recipes: tuple[str, ...] = RECIPES
    steps: int = 4
    rounds: int = 3

    @property
    def name(self) -> str:
        """Name of the workload in tables."""
        return f"{self.backbone} {self.batch} x {self.lengths}"


FULL = tuple(
    Workload(backbone, lengths)
    for lengths in (FULL_LENGTH, OWN_LENGTHS)
    for backbone in ("t5-large", "bart-large")
)
TINY = (Workload("nano-t5", OWN_LENGTHS, 1, RECIPES[:1], 1, 2),)
SECONDS = 25.0
"""Seconds that must be left to begin a workload."""


def run(result: StepResult) -> str:
    """Measure each workload; store the row of each recipe as soon as it is measured."""
    print_requests()
    workloads = TINY if result.request.tiny else FULL
    for first in (True, False):  # The most informative recipe of all workloads first.
        for workload in workloads:
            recipes = workload.recipes[:1] if first else workload.recipes[1:]
            if recipes:
                measure(replace(workload, recipes=recipes), result)
    shown = [
        f"{name.removesuffix(' lora_ff+lprun')} {speed['relative']:.0%}"
        for name, case in result.cases.items()
        if name.endswith(" lora_ff+lprun") and (speed := case.get("row", {}).get("speed"))
    ]
    return f"lora_ff+lprun: {', '.join(shown)}" if shown else ""


def measure(workload: Workload, result: StepResult) -> None:
    """Measure the recipes of a workload that have no result yet."""
    missing = [r for r in workload.recipes if not result.is_stored(f"{workload.name} {r}")]
    if not missing:
        print(f"{workload.name}: is there", flush=True)
        return
    rows = profile(workload, missing, result.request.device)
    least = 0 if result.request.tiny else SECONDS
    for recipe in missing:
        result.case(f"{workload.name} {recipe}", lambda: take(rows), least)
    rows.close()  # It ends the process of full fine-tuning.


def take(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the next row; running out of memory is a result too.

    Raises:
        RuntimeError: the recipe failed in any other way.
    """
    result = next(rows, None)
    if result is None:
        raise RuntimeError("full fine-tuning failed, with which it is compared")
    if result["row"]["status"] == "error":
        raise RuntimeError(result["row"]["failure"]["message"])
    return result


def profile(
    workload: Workload, recipes: list[str], device: str
) -> Generator[dict[str, Any], None, None]:
    """Yield a row for each recipe: speed, memory and parameters."""
    from work import make_examples

    from harness.api.plugins import installed
    from harness.costs.batches import choose_batches, profile_spec
    from harness.costs.data_choice import DataChoice
    from harness.costs.profile import each_recipe
    from harness.measurement.probe import freeze
    from harness.training.schedule import Schedule

    plugins = installed()
    task = None if workload.lengths == FULL_LENGTH else workload.lengths
    settings = {
        "device": device,
        "train": {"batch_size": workload.batch, "precision": "bfloat16"},
        "probe": {"steps": workload.steps, "rounds": workload.rounds},
    }
    spec = profile_spec(workload.backbone, task, settings)
    backbone = plugins.backbone(spec.backbone)
    if task is None:
        count = spec.probe.warmup_steps + spec.probe.rounds * spec.probe.steps
        vocabulary = backbone.config().vocab_size
        examples = make_examples(count * workload.batch, vocabulary, full_length=True)
        frozen = freeze(Schedule(examples, workload.batch, 1, spec.seed), spec.probe)
    else:
        frozen = choose_batches(
            spec, backbone, plugins.task(spec.task, spec.task_options), DataChoice.LENGTHS
        ).frozen
    parsed = [plugins.recipe(recipe) for recipe in recipes]
    for row in each_recipe(spec, backbone, parsed, frozen, print, estimate_memory=False):
        yield {
            "workload": workload.name,
            "mean_source_tokens": frozen.mean_source_tokens,
            "mean_target_tokens": frozen.mean_target_tokens,
            "row": row.model_dump(),
        }


if __name__ == "__main__":
    sys.exit(run_step(run))
