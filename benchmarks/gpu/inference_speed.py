"""Step 8: decoding with the merged model of a recipe, beside that of full fine-tuning.

The measurement is that of ``harness profile --inference``, with sources of the maximum length.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from gpu.requests import print_requests
from gpu.step import StepResult, run_step

RECIPES = ("lprun", "lora_ff+lprun", "lora_ff")
TOKENS = 48
"""Tokens that each example generates."""
SECONDS = 18.0
"""Seconds that must be left to begin a recipe."""


def run(result: StepResult) -> str:
    """Measure recipes on each shape, layer pruning first."""
    print_requests()
    device, tiny = result.request.device, result.request.tiny
    shapes = ("nano-t5",) if tiny else ("t5-large", "bart-large")
    work = [(shape, recipe) for recipe in RECIPES for shape in shapes]
    for number, (shape, recipe) in enumerate(work[:1] if tiny else work):
        # The first shapes share the time: the others are measured if some is left.
        budget = result.seconds_left / max(1, len(shapes) - number)
        measure = partial(compare, shape, recipe, device, tiny, 5 if tiny else budget)
        result.case(f"{shape} {recipe}", measure, 0 if tiny else SECONDS)
    shown = [
        f"{name} {case['latency']['relative']:.0%}"
        for name, case in result.cases.items()
        if case.get("latency")
    ]
    return f"speed at batch 1: {', '.join(shown)}" if shown else ""


def compare(shape: str, recipe: str, device: str, tiny: bool, budget: float) -> dict[str, Any]:
    """Return latency, throughput, memory and size of a recipe, relative to full fine-tuning.

    Args:
        shape: name of the backbone; its weights are random.
        recipe: the recipe.
        device: ``cuda`` or ``cpu``.
        tiny: decode four tokens.
        budget: seconds that it should take, with the start of its processes.
    """
    from work import make_examples

    from harness.api.plugins import installed
    from harness.costs.batches import profile_spec
    from harness.measurement.decoding_work import freeze_decoding
    from harness.measurement.inference import measure_inference
    from harness.measurement.probe import freeze
    from harness.training.schedule import Schedule

    settings = {
        "device": device,
        "train": {"batch_size": 1 if tiny else 8, "precision": "bfloat16"},
        "test": {"max_new_tokens": 4 if tiny else TOKENS, "batch_size": 2 if tiny else 8},
        "probe": {"steps": 1, "rounds": 2 if tiny else 3},
    }
    spec = profile_spec(shape, None, settings).model_copy(update={"recipe": recipe})
    vocabulary = installed().backbone(shape).config().vocab_size
    examples = make_examples(8 if tiny else 64, vocabulary, full_length=True)
    frozen = freeze(Schedule(examples, spec.train.batch_size, 1, spec.seed), spec.probe)
    full = spec.model_copy(update={"recipe": "full"})
    work = freeze_decoding(frozen, spec.test)
    inference = measure_inference(spec, work, full, budget, lambda: None)
    record: dict[str, Any] = inference.model_dump()
    return record


if __name__ == "__main__":
    sys.exit(run_step(run))
