"""Step 2: our step against the padded one of the library, and our beam search against its own.

Dropout is off, weights are equal. In float32 losses and gradients must agree; in bfloat16 ours may
be no further from the float32 reference than the library's own bfloat16 step, within a factor.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from gpu.step import StepResult, run_step

RECIPES = ("lora_ff+lprun", "full", "lprun", "lora_ff", "lora_qv", "lora_qv+lprun")
CLOSE = {"loss": 1e-4, "gradients": 1e-3}
"""Largest relative distances in float32, which rounding explains."""
ALLOWED = {"loss": 2e-3, "gradients": 2e-2}
"""Relative distances in bfloat16 that are always allowed."""
FACTOR = 2.0
"""Largest ratio of the harness's distance from float32 to the library's."""
SECONDS = 5.0
"""Seconds that must be left to begin a comparison."""


def run(result: StepResult) -> str:
    """Compare every recipe on each shape, then the searches."""
    device, tiny = result.request.device, result.request.tiny
    shapes = ("nano-t5",) if tiny else ("t5-small", "bart-base", "t5-v1_1-small")
    recipes = RECIPES[:1] if tiny else RECIPES
    searches = ("nano-t5",) if tiny else ("nano-t5", "t5-small", "bart-base")
    count, tokens = (2, 6) if tiny else (16, 48)
    for place, recipe in enumerate(recipes):
        for shape in shapes:
            result.case(f"{shape} {recipe}", partial(compare, shape, recipe, device), SECONDS)
        for shape in searches if place == 0 else ():
            search = partial(compare_search, shape, device, count, tokens)
            result.case(f"{shape} search", search, SECONDS)
    sound = [c for c in result.cases.values() if "failure" not in c]
    wrong = [name for name, c in result.cases.items() if c.get("equal") is False]
    result.wrong += wrong
    return f"{len(sound) - len(wrong)} equal, {len(wrong)} different{': ' * bool(wrong)}" + (
        ", ".join(wrong[:2])
    )


def compare(shape: str, recipe: str, device: str) -> dict[str, Any]:
    """Return distances of losses and gradients from those of the padded float32 reference."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    reference = gradients(shape, recipe, device, "float32", "off")
    found = {
        name: distances(reference, gradients(shape, recipe, device, precision, packing))
        for name, precision, packing in (
            ("float32", "float32", "on"),
            ("bfloat16", "bfloat16", "on"),
            ("library bfloat16", "bfloat16", "off"),
        )
    }
    equal = all(found["float32"][what] <= CLOSE[what] for what in CLOSE) and all(
        found["bfloat16"][what] <= max(ALLOWED[what], FACTOR * found["library bfloat16"][what])
        for what in ALLOWED
    )
    return {"distances": found, "equal": equal, "loss": float(reference[0])}


def gradients(shape: str, recipe: str, device: str, precision: str, packing: str) -> Any:
    """Return the loss and the gradients of one step, on weights that only depend on the recipe."""
    import torch

    from gpu.device_weights import new_case
    from harness.spec.run_spec import RunSpec
    from harness.training.resolved_run import resolve_run
    from harness.training.trainer import load_trainer

    case = new_case(shape, recipe, device)
    settings = {"precision": precision, "packing": packing}
    spec = RunSpec.model_validate(
        {"recipe": recipe, "weights": "random", "device": device, "train": settings}
    )
    trainer = load_trainer(resolve_run(spec, case.backbone, case.parsed))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.trained.items():
        if ".lora_B." in name:  # Zeros as they come: then nothing would reach the other factor.
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data.copy_(drawn)
    trainer.model.eval()
    batch = trainer.engine.collate(examples_for(case))
    loss = trainer.backward([batch], batch.target_tokens)
    found = {
        name: parameter.grad.float()
        for name, parameter in trainer.trained.items()
        if parameter.grad is not None
    }
    return loss.float(), found


def examples_for(case: Any) -> list[Any]:
    """Return eight examples of unequal lengths, one of them of full length."""
    from work import make_examples

    vocabulary = case.backbone.config().vocab_size
    return [
        *make_examples(7, vocabulary, full_length=False),
        *make_examples(1, vocabulary, full_length=True),
    ]


def distances(reference: Any, found: Any) -> dict[str, float]:
    """Return the relative distances of two losses, and of all gradients as one vector.

    Raises:
        RuntimeError: other parameters have a gradient.
    """
    (loss, expected), (other_loss, other) = reference, found
    if expected.keys() != other.keys():
        names = sorted(expected.keys() ^ other.keys())
        raise RuntimeError(f"only one of both steps gives {names[0]} a gradient")
    apart = sum(float((other[name] - g).double().square().sum()) for name, g in expected.items())
    length = sum(float(g.double().square().sum()) for g in expected.values())
    return {
        "loss": abs(float(other_loss) / float(loss) - 1),
        "gradients": (apart / length) ** 0.5,
    }


def compare_search(shape: str, device: str, count: int, tokens: int) -> dict[str, Any]:
    """Return how many predictions in float32 are those of transformers' own search.

    Scores of random weights are so close that another order of sums can change a word, so that
    only trained weights must predict the same.
    """
    from gpu.beams import model_and_sources, predict

    model, backbone, sources = model_and_sources(shape, device, count)
    ours, theirs = (
        predict(model, backbone, sources, shared, "float32", tokens) for shared in (True, False)
    )
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    found = {"same": same, "of": count}
    return {**found, "equal": same == count} if shape == "nano-t5" else found


if __name__ == "__main__":
    sys.exit(run_step(run))
