"""Loss curves of 200 steps of the packed engine, launched and recorded, against padded batches."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from harness import Backbone
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.engines import attention
from harness.training.engines.fused_attention import fused_attention
from harness.training.learning_rate import learning_rate_schedule
from harness.training.recording import plan_shapes, record_steps
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule, prefetch, step_sizes
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow
SIX = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]
STEPS = 200
SEEDS = 6
CLOSE = 5e-3
"""Relative distance of losses. Rounding in the seventh digit grows to the third in 200 steps."""
SETTINGS = TrainSettings(
    precision="float32", learning_rate=1e-3, adapter_learning_rate=3e-3, warmup_steps=20
)
LAST = 50
"""Steps whose losses are averaged where dropout makes each one random."""


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


def examples() -> list[Example]:
    """Return sources of random tokens, whose targets can be learned: some of their tokens."""
    draw = random.Random(0)
    sources = [draw.choices(range(3, 48), k=draw.randint(2, 16)) for _ in range(32)]
    return [Example([*source, 1], [*source[: len(source) // 2], 1]) for source in sources]


def new_trainer(backbone: Backbone, recipe: str, engine: str) -> Trainer:
    train = SETTINGS.model_copy(update={"engine": engine})
    spec = RunSpec(recipe=recipe, weights="random", device="cpu", train=train)
    trainer = load_trainer(resolve_run(spec, backbone, installed().recipe(recipe)))
    trainer.model.train()
    return trainer


def without_dropout(trainer: Trainer) -> Trainer:
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return trainer


def curve(trainer: Trainer, seed: int = 0) -> list[float]:
    """Return the losses of a training; the seed decides its dropout and nothing else."""
    torch.manual_seed(seed)
    steps = list(Schedule(examples(), 4, 1, seed=0).steps(0, STEPS))
    plan_shapes(trainer, step_sizes(steps), STEPS)
    rates = learning_rate_schedule(trainer.optimizer, SETTINGS, STEPS)
    losses = []
    for step, batches in prefetch(steps, trainer.engine.collate):
        losses.append(float(trainer.step(batches, step.target_tokens)))
        rates.step()
    return losses


@pytest.mark.parametrize("recipe", SIX)
def test_without_dropout_the_curves_are_equal(
    backbone: Backbone, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = curve(without_dropout(new_trainer(backbone, recipe, "padded")))
    assert expected[-1] < 0.9 * expected[0]  # It learns.
    assert curve(without_dropout(new_trainer(backbone, recipe, "packed"))) == pytest.approx(
        expected, rel=CLOSE
    )
    # Recorded steps need attention that reads the offsets of sequences from a tensor.
    monkeypatch.setattr(attention._PerSequence, "apply", fused_attention)
    recorded = without_dropout(new_trainer(backbone, recipe, "packed"))
    record_steps(recorded, Rerun)
    assert curve(recorded) == pytest.approx(expected, rel=CLOSE)
    assert recorded.graphs
    assert recorded.graphs.replays > STEPS // 2


def last_losses(trainer_of: Callable[[], Trainer]) -> list[float]:
    return [statistics.fmean(curve(trainer_of(), seed)[-LAST:]) for seed in range(SEEDS)]


@pytest.mark.parametrize("recipe", SIX)
def test_with_dropout_the_curves_have_one_distribution(backbone: Backbone, recipe: str) -> None:
    """The means over seeds differ by no more than chance, and by little of what dropout does."""
    packed, padded = (
        last_losses(lambda engine=engine: new_trainer(backbone, recipe, engine))  # type: ignore[misc]
        for engine in ("packed", "padded")
    )
    difference = statistics.fmean(packed) - statistics.fmean(padded)
    variances = [statistics.variance(losses) / SEEDS for losses in (packed, padded)]
    # Welch's interval, so wide that all recipes and families together exceed it by chance in 4 %.
    freedom = sum(variances) ** 2 / sum(v**2 / (SEEDS - 1) for v in variances)
    half = float(stats.t.ppf(1 - 0.001, freedom)) * math.sqrt(sum(variances))
    assert abs(difference) < half
    plain = curve(without_dropout(new_trainer(backbone, recipe, "padded")))
    effect = statistics.fmean(padded) - statistics.fmean(plain[-LAST:])
    assert half < effect
