"""Step 5: the packed training step and the beam search against those of the library.

Dropout is off and weights are equal. In float32 losses and gradients must agree. In bfloat16 the
distance from the float32 reference may be at most ``FACTOR`` times that of the library's step.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from gpu.step import StepResult, run_step

RECIPES = ("lora_ff+lprun", "full", "lprun", "lora_ff", "lora_qv", "lora_qv+lprun")
CLOSE = {"loss": 1e-4, "gradients": 1e-3}
"""Largest relative distances in float32, explained by rounding."""
ALLOWED = {"loss": 2e-3, "gradients": 2e-2}
"""Relative distances that are always allowed in bfloat16."""
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
    for number, recipe in enumerate(recipes):
        for shape in shapes:
            result.case(f"{shape} {recipe}", partial(compare, shape, recipe, device), SECONDS)
        for shape in searches if number == 0 else ():
            search = partial(compare_search, shape, device, count, tokens)
            result.case(f"{shape} search", search, SECONDS)
    measured = [c for c in result.cases.values() if "failure" not in c]
    wrong = [name for name, c in result.cases.items() if c.get("equal") is False]
    result.wrong += wrong
    return f"{len(measured) - len(wrong)} equal, {len(wrong)} different{': ' * bool(wrong)}" + (
        ", ".join(wrong[:2])
    )


def compare(shape: str, recipe: str, device: str) -> dict[str, Any]:
    """Return distances of losses and gradients from those of the padded float32 reference."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    reference = gradients(shape, recipe, device, "float32", "padded")
    distances_by_step = {
        name: distances(reference, gradients(shape, recipe, device, precision, engine))
        for name, precision, engine in (
            ("float32", "float32", "packed"),
            ("bfloat16", "bfloat16", "packed"),
            ("library bfloat16", "bfloat16", "padded"),
        )
    }
    equal = all(
        distances_by_step["float32"][quantity] <= CLOSE[quantity] for quantity in CLOSE
    ) and all(
        distances_by_step["bfloat16"][quantity]
        <= max(ALLOWED[quantity], FACTOR * distances_by_step["library bfloat16"][quantity])
        for quantity in ALLOWED
    )
    return {"distances": distances_by_step, "equal": equal, "loss": float(reference[0])}


def gradients(shape: str, recipe: str, device: str, precision: str, engine: str) -> Any:
    """Return the loss and the gradients of one step; the weights depend on the recipe only."""
    import torch

    from gpu.device_weights import new_case
    from harness.spec.run_spec import RunSpec
    from harness.training.build import load_trainer
    from harness.training.resolved_run import resolve_run

    case = new_case(shape, recipe, device)
    settings = {"precision": precision, "engine": engine}
    spec = RunSpec.model_validate(
        {"recipe": recipe, "weights": "random", "device": device, "train": settings}
    )
    trainer = load_trainer(resolve_run(spec, case.backbone, case.parsed))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.trained.items():
        if ".lora_B." in name:  # Zeros would leave lora_A without gradient.
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data.copy_(drawn)
    trainer.model.eval()
    batch = trainer.engine.collate(examples_for(case))
    loss = trainer.backward([batch], batch.target_tokens)
    gradient_of = {
        name: parameter.grad.float()
        for name, parameter in trainer.trained.items()
        if parameter.grad is not None
    }
    return loss.float(), gradient_of


def examples_for(case: Any) -> list[Any]:
    """Return eight examples of different lengths, one of them of full length."""
    from work import make_examples

    vocabulary = case.backbone.config().vocab_size
    return [
        *make_examples(7, vocabulary, full_length=False),
        *make_examples(1, vocabulary, full_length=True),
    ]


def distances(reference: Any, measured: Any) -> dict[str, float]:
    """Return the relative distances of two losses, and of all gradients as one vector.

    Raises:
        RuntimeError: a parameter has a gradient in only one of the steps.
    """
    (loss, expected), (other_loss, other) = reference, measured
    if expected.keys() != other.keys():
        names = sorted(expected.keys() ^ other.keys())
        raise RuntimeError(f"only one of both steps gives {names[0]} a gradient")
    squared_distance = sum(
        float((other[name] - g).double().square().sum()) for name, g in expected.items()
    )
    squared_norm = sum(float(g.double().square().sum()) for g in expected.values())
    return {
        "loss": abs(float(other_loss) / float(loss) - 1),
        "gradients": (squared_distance / squared_norm) ** 0.5,
    }


def compare_search(shape: str, device: str, count: int, tokens: int) -> dict[str, Any]:
    """Return the number of predictions in float32 that equal those of transformers' search.

    With random weights scores are so close that the order of summation can change a word, so only
    trained weights must give equal predictions.
    """
    from gpu.beams import model_and_sources, predict

    model, backbone, sources = model_and_sources(shape, device, count)
    own, expected = (
        predict(model, backbone, sources, shared, "float32", tokens) for shared in (True, False)
    )
    same = sum(a == b for a, b in zip(own, expected, strict=True))
    counts = {"same": same, "of": count}
    return {**counts, "equal": same == count} if shape == "nano-t5" else counts


if __name__ == "__main__":
    sys.exit(run_step(run))
