"""Step 7: decoding with the merged model of a recipe, beside that of full fine-tuning.

The measurement is that of ``harness profile --inference``.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from gpu.quick_processes import start_quickly
from gpu.step import StepResult, run_step

RECIPES = ("lprun", "lora_ff+lprun", "lora_ff")
SECONDS = 18.0
"""Seconds that must be left to begin a recipe, and that it may take."""


def run(result: StepResult) -> str:
    """Measure recipes on each shape, layer pruning first."""
    start_quickly()
    device, tiny = result.request.device, result.request.tiny
    shapes = ("nano-t5",) if tiny else ("t5-large", "bart-large")
    for recipe in RECIPES[:1] if tiny else RECIPES:
        for shape in shapes:
            least = 0 if tiny else SECONDS
            result.case(f"{shape} {recipe}", partial(compare, shape, recipe, device, tiny), least)
    shown = [
        f"{name} {case['latency']['relative']:.0%}"
        for name, case in result.cases.items()
        if case.get("latency")
    ]
    return f"speed at batch 1: {', '.join(shown)}" if shown else ""


def compare(shape: str, recipe: str, device: str, tiny: bool) -> dict[str, Any]:
    """Return latency, throughput, memory and size of a recipe, relative to full fine-tuning."""
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
        "test": {"max_new_tokens": 4 if tiny else 64},
        "probe": {"steps": 1, "rounds": 2},
    }
    spec = profile_spec(shape, None, settings).model_copy(update={"recipe": recipe})
    vocabulary = installed().backbone(shape).config().vocab_size
    examples = make_examples(8 if tiny else 256, vocabulary, full_length=False)
    frozen = freeze(Schedule(examples, spec.train.batch_size, 1, spec.seed), spec.probe)
    full = spec.model_copy(update={"recipe": "full"})
    work = freeze_decoding(frozen, spec.test)
    inference = measure_inference(spec, work, full, SECONDS, lambda: None)
    record: dict[str, Any] = inference.model_dump()
    return record


if __name__ == "__main__":
    sys.exit(run_step(run))
