"""The contenders of the training benchmark: this harness, and the trainer that users have today."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from clock import Clock, Window
from torch import nn
from trainer import COMPILED_WARMUP, LEARNING_RATE, Batches, Settings, build, train
from work import Case, demo_batches

from harness.api.backbone import Weights
from harness.api.recipe import Recipe
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.recording import plan_shapes, record_ahead
from harness.training.resolved_run import choose_device, resolve_run
from harness.training.schedule import Step, prefetch

PLANNED_STEPS = 10_000
"""Length of the training that a window stands for."""


@dataclass(frozen=True)
class Contender:
    """One implementation of training with its settings.

    Attributes:
        settings: settings of the trainer.
        ours: true for this harness, which only uses the precision of the settings.
    """

    settings: Settings
    ours: bool = False

    @property
    def name(self) -> str:
        """Name in tables."""
        if self.ours:
            return f"harness, {'float32' if self.dtype == 'float32' else 'bf16'}"
        return self.settings.name

    @property
    def dtype(self) -> str:
        """Type that matrix products are computed in."""
        return self.settings.dtype


OURS = tuple(Contender(Settings(dtype), ours=True) for dtype in ("float32", "bfloat16"))
DEFAULT = Contender(Settings())
"""The trainer with its default settings."""


def variants(base: Contender, recipe: Recipe) -> list[Contender]:
    """Return the peers that differ from a base in one setting."""
    changes: list[dict[str, Any]] = [
        {"batching": "random"},
        {"batching": "budget"},
        {"attention": "eager"},
        {"optimizer": "adamw_torch"},
        {"compiled": True},
    ]
    if can_round_weights(base, recipe):
        changes.append({"low_weights": True})
    return [Contender(replace(base.settings, **change)) for change in changes]


def together(base: Contender, better: list[Contender]) -> Contender:
    """Return the base with all settings in which better ones differ from it."""
    settings = base.settings
    for other in better:
        changed = {
            name: value
            for name, value in vars(other.settings).items()
            if value != getattr(base.settings, name)
        }
        settings = replace(settings, **changed)
    return Contender(settings)


def can_round_weights(base: Contender, recipe: Recipe) -> bool:
    """Return whether weights can be stored in bfloat16: trained ones would lose small updates."""
    adapted = any(getattr(compressor, "roles", ()) for compressor in recipe.compressors)
    return adapted and base.dtype == "bfloat16"


def run_window(contender: Contender, case: Case) -> Window:
    """Train one contender on a case."""
    torch.set_num_threads(case.threads)
    if contender.settings.compiled:
        case = replace(case, warmup=max(case.warmup, COMPILED_WARMUP))
    batches = case.batches(contender.settings.batching)
    return _run(contender, case, batches, case.warmup, "random", with_dropout=True)


def run_curve(contender: Contender, case: Case) -> list[float]:
    """Return the losses of a contender on the embedded task, without dropout's random numbers."""
    torch.set_num_threads(case.threads)
    batches = demo_batches(case.backbone, case.batch, case.steps)
    return _run(contender, case, batches, 1, "pretrained", with_dropout=False).losses


def _run(
    contender: Contender,
    case: Case,
    batches: Batches,
    warmup: int,
    weights: Weights,
    with_dropout: bool,
) -> Window:
    clock = Clock(warmup, case.device)
    choose_device(case.device)  # It selects the same attention kernels for every contender.
    if contender.ours:
        return _harness(contender, case, batches, weights, with_dropout, clock)
    torch.manual_seed(0)
    model = build(contender.settings, case.backbone, case.parsed, weights)
    _draw_adapter(model)
    if not with_dropout:
        _turn_off_dropout(model)
    return train(contender.settings, model, batches, case.device, clock)


def _harness(
    contender: Contender,
    case: Case,
    batches: Batches,
    weights: Weights,
    with_dropout: bool,
    clock: Clock,
) -> Window:
    """Train as ``harness run`` does, with prefetched batches."""
    train = {
        "precision": contender.dtype,
        "learning_rate": LEARNING_RATE,
        "adapter_learning_rate": LEARNING_RATE,
    }
    spec = RunSpec.model_validate(
        {
            "backbone": case.shape,
            "recipe": case.recipe,
            "weights": weights,
            "device": case.device,
            "train": train,
        }
    )
    trainer = load_trainer(resolve_run(spec, case.backbone, case.parsed))
    _draw_adapter(trainer.model)
    if not with_dropout:
        _turn_off_dropout(trainer.model)
    trainer.model.train()
    losses = []
    steps = [Step((tuple(batch),)) for batch in batches]
    plan_shapes(trainer, case.sizes(), PLANNED_STEPS)
    record_ahead(trainer, steps)
    for done, (step, made) in enumerate(prefetch(steps, trainer.engine.collate), start=1):
        losses.append(trainer.step(made, step.target_tokens))
        clock.step_done(done, step.source_tokens + step.target_tokens)
    return replace(clock.read(losses), engine=trainer.engine_name)


def _draw_adapter(model: nn.Module) -> None:
    """Initialize adapters with a generator of their own, so that all contenders start equal."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            drawn = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(drawn)


def _turn_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
