"""Whether what a run hands over behaves like what it trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.recipe import Recipe
from harness.reporting.report import HandOver
from harness.training.engine import PaddedEngine
from harness.training.examples import Example


@torch.inference_mode()
def hand_over(model: PreTrainedModel, recipe: Recipe, examples: Sequence[Example]) -> HandOver:
    """Fold the adapters into plain layers, and compare the logits before and after.

    Args:
        model: the trained model; used up.
        recipe: what it was composed with.
        examples: a batch that fits in memory.
    """
    model.eval()
    pad = model.config.pad_token_id
    engine = PaddedEngine(pad, torch.float32, model.device.type)
    batch = engine.collate(examples).to(model.device)

    def logits() -> Tensor:
        found: Tensor = model(**batch.tensors).logits
        return found

    adapted = logits()
    for compressor in reversed(recipe.compressors):
        model = compressor.merge(model)
    return HandOver(largest_logit_difference=float((adapted - logits()).abs().max()))
