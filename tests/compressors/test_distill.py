"""Distillation: its loss beside plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import STACKS, Backbone, Compressor, Context, HarnessError, Options, Stage, Teacher
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.trainer import Trainer

EXAMPLES = [
    Example([5, 6, 7, 8, 9, 1], [8, 9, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
    Example([31, 30, 29, 28, 1], [11, 1]),
]


def resolved(backbone: Backbone, text: str, packing: str) -> ResolvedRun:
    train = TrainSettings.model_validate({"packing": packing, "precision": "float32"})
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train)
    return resolve_run(spec, backbone, installed().recipe(text))


def without_dropout(trainer: Trainer) -> Trainer:
    trainer.model.train()
    for module in trainer.model.modules():
        for name in ("p", "dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return trainer


def states_and_logits(model: Any, backbone: Backbone, example: Example) -> tuple[Any, Tensor]:
    """Compute an example by itself, with the states after each layer."""
    states: dict[str, list[Tensor]] = {stack: [] for stack in STACKS}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, stack=stack: states[stack].append(
                output if torch.is_tensor(output) else output[0]
            )
        )
        for stack in STACKS
        for layer in backbone.layers(model, stack)
    ]
    ids, labels = torch.tensor([example.source]), torch.tensor([example.target])
    with torch.no_grad():
        logits = model(input_ids=ids, labels=labels).logits[0]
    for hook in hooks:
        hook.remove()
    return states, logits


@pytest.mark.parametrize("packing", ["on", "off"])
def test_the_loss_is_that_of_plain_code(
    shallow: Backbone, make_shallow: Callable[[], Any], packing: str
) -> None:
    weight, temperature, hidden = 0.3, 3.0, 0.2
    options = f"weight={weight},temperature={temperature},hidden={hidden}"
    text = f"distill:{options}+lprun:encoder=1.3,decoder=2"
    trainer = without_dropout(load_trainer(resolved(shallow, text, packing)))
    kept = {"encoder": trainer.layers_kept.encoder, "decoder": trainer.layers_kept.decoder}
    batch = trainer.engine.collate(EXAMPLES)
    loss = trainer.backward([batch], batch.target_tokens)
    trainer.engine.unpatch(trainer.model)
    torch.manual_seed(0)
    teacher = shallow.load("random").eval()
    total, tokens = 0.0, sum(len(e.target) for e in EXAMPLES)
    distances: dict[str, list[Tensor]] = {stack: [] for stack in STACKS}
    for example in EXAMPLES:
        states, logits = states_and_logits(trainer.model.eval(), shallow, example)
        taught, target = states_and_logits(teacher, shallow, example)
        p, q = (target / temperature).softmax(-1), (logits / temperature).softmax(-1)
        divergence = (p * (p.log() - q.log())).sum() * temperature**2
        labels = torch.tensor(example.target)
        entropy = -logits.log_softmax(-1)[range(len(labels)), labels].sum()
        total += float((1 - weight) * entropy + weight * divergence)
        for stack in STACKS:
            for own, number in zip(states[stack], kept[stack], strict=True):
                of = taught[stack][number - 1]
                distances[stack].append(((own - of) ** 2).sum(-1)[0] / (of**2).sum(-1)[0])
    for stack in STACKS:
        total += hidden * float(torch.cat(distances[stack]).mean()) * tokens
    assert kept["encoder"] == [1, 3]
    assert float(loss) == pytest.approx(total / tokens, rel=1e-5)


def test_different_teachers_of_a_recipe_are_refused() -> None:
    class Learner(Compressor[Options]):
        stage = Stage.OBJECTIVE
        Options = Options
        needs = frozenset({"teacher"})
        teacher = Teacher("somebody")

        def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
            return model

    (distill,) = installed().recipe("distill").compressors
    with pytest.raises(HarnessError, match="several teachers"):
        _ = Recipe((distill, Learner("learner", Options()))).teacher
    assert Recipe((distill,)).teacher == Teacher("original")
