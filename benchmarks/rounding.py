"""Rounding at random: how much the last digits of its weights matter to a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from harness.training.engines.padded import Batch
from harness.training.trainer import Trainer

DIGIT = 1e-7


def round_at_random(trainer: Trainer, seed: int = 0) -> Trainer:
    """Change all weights in the seventh digit before each step, up or down by chance.

    Frozen weights are changed from their first values, so that the changes do not add up.
    """
    weights = [*trainer.model.parameters()]
    frozen = {p: p.detach().clone() for p in weights if not p.requires_grad}
    generator = torch.Generator().manual_seed(seed)
    take = trainer.step

    def step(batches: Iterable[Batch], target_tokens: int, check: bool = False) -> Tensor:
        for weight in weights:
            signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
            weight.data.copy_(frozen.get(weight, weight.data) * (1 + DIGIT * signs))
        return take(batches, target_tokens, check)

    trainer.step = step  # type: ignore[method-assign, assignment]
    return trainer
