"""Activation checkpointing: the same loss and gradients, with dropout, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.measurement.memory import peak_of_allocations
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.resolved_run import resolve_run
from harness.training.trainer import Trainer

EXAMPLES = [Example([5] * n + [1], [7] * m + [1]) for n, m in [(30, 14), (9, 3), (1, 20), (35, 8)]]


def make_trainer(backbone: Backbone, checkpointing: str, **train: str) -> Trainer:
    settings = {"checkpointing": checkpointing, "precision": "float32", **train}
    spec = RunSpec.model_validate(
        {"recipe": "lora_ff+lprun", "weights": "random", "device": "cpu", "train": settings}
    )
    trainer = load_trainer(resolve_run(spec, backbone, parse(spec.recipe, installed().compressors)))
    trainer.model.train()
    torch.manual_seed(1)
    for name, parameter in trainer.trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return trainer


def outcome(trainer: Trainer) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(2)  # Of dropout, which is on.
    tokens = sum(len(e.target) for e in EXAMPLES)
    loss = trainer.backward([trainer.engine.collate(EXAMPLES)], tokens)
    return float(loss), {n: p.grad for n, p in trainer.trained.items() if p.grad is not None}


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("packed", "float32"), ("packed", "bfloat16"), ("padded", "float32")],
)
def test_loss_and_gradients_are_the_same_to_the_bit(
    backbone: Backbone, engine: str, precision: str
) -> None:
    settings = {"engine": engine, "precision": precision}
    kept_loss, kept = outcome(make_trainer(backbone, "off", **settings))
    loss, gradients = outcome(make_trainer(backbone, "on", **settings))
    assert loss == kept_loss
    assert gradients.keys() == kept.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, kept[name]), name
    assert any(g.norm() > 0 for g in kept.values())


def test_memory_falls(backbone: Backbone) -> None:
    def peak(checkpointing: str) -> int:
        trainer = make_trainer(backbone, checkpointing)
        outcome(trainer)
        return peak_of_allocations(lambda: outcome(trainer))

    assert peak("on") < 0.6 * peak("off")
