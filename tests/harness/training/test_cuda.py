"""The CUDA paths against the CPU's."""

from __future__ import annotations

import pytest
import torch

from harness import Backbone
from harness.evaluation.decoding import generate
from harness.evaluation.settings import DecodingSettings
from harness.plugins import installed
from harness.recipe import parse
from harness.spec import RunSpec
from harness.training.examples import Example
from harness.training.trainee import Trainee, prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

EXAMPLES = [
    Example([5 + i % 7 for i in range(n)] + [1], [9 + i % 5 for i in range(m)] + [1])
    for n, m in [(30, 14), (9, 3), (1, 20), (35, 8)]
]
TOKENS = sum(len(e.target) for e in EXAMPLES)


def trainee(backbone: Backbone, device: str, recipe: str) -> Trainee:
    spec = RunSpec.model_validate(
        {
            "recipe": recipe,
            "weights": "random",
            "device": device,
            "train": {"precision": "float32", "packing": "on"},
        }
    )
    return prepare(backbone, parse(recipe, installed().compressors), spec)


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_loss_and_gradients_are_those_of_the_cpu(backbone: Backbone, recipe: str) -> None:
    made = {device: trainee(backbone, device, recipe) for device in ("cpu", "cuda")}
    losses = {}
    for device, one in made.items():
        one.model.eval()  # Without dropout.
        losses[device] = float(one.backward([one.engine.collate(EXAMPLES)], TOKENS))
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-4)
    largest = max(float(p.grad.norm()) for p in made["cpu"].trained.values() if p.grad is not None)
    for name, parameter in made["cpu"].trained.items():
        other = made["cuda"].trained[name].grad
        assert parameter.grad is not None
        assert other is not None
        assert float((other.cpu() - parameter.grad).norm()) < 1e-3 * largest, name


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_steps_with_dropout_lower_the_loss(backbone: Backbone, recipe: str) -> None:
    one = trainee(backbone, "cuda", recipe)
    one.model.train()
    for group in one.optimizer.param_groups:
        group["lr"] = 1e-2
    losses = [float(one.step([one.engine.collate(EXAMPLES)], TOKENS)) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


class Ids:
    """Stands for a tokenizer."""

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, row)) for row in rows.tolist()]


def test_predictions_are_those_of_the_cpu(backbone: Backbone) -> None:
    torch.manual_seed(0)
    model = backbone.load("random")
    sources = [e.source for e in EXAMPLES]
    search = DecodingSettings(beams=3, max_new_tokens=12)
    expected = generate(model, Ids(), sources, search, shared_beams=True)
    found = generate(model.to("cuda"), Ids(), sources, search, shared_beams=True)
    assert found == expected
