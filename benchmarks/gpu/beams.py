"""Beam search of the harness and of transformers, on one model and the same sources."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel
from work import demo_batches

from gpu.device_weights import on_device
from harness import Backbone
from harness.api.plugins import installed
from harness.evaluation.decoding import BatchSearch, generate, searching
from harness.spec.decoding import DecodingSettings
from harness.training.resolved_run import choose_device

Rows = list[list[int]]


class Ids:
    """Replaces a tokenizer, since token ids are compared and not texts."""

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        """Return rows as ids without the special ones, which are the lowest in both families."""
        return [" ".join(str(i) for i in row if i > 3) for row in rows.tolist()]


def model_and_sources(
    shape: str, device: str, count: int
) -> tuple[PreTrainedModel, Backbone, Rows]:
    """Return a model, pretrained where the package has its weights, and sources for it."""
    place = choose_device(device)
    backbone = on_device(installed().backbone(shape), device)
    torch.manual_seed(0)
    trained = shape == "nano-t5"  # Only its weights are part of the package.
    model = backbone.load("pretrained" if trained else "random").eval().to(place)
    if trained:
        batches = demo_batches(backbone, 1, count)
        return model, backbone, [batch[0].source for batch in batches]
    generator = random.Random(0)
    end = model.generation_config.eos_token_id
    lengths = [min(512, 2 + int(generator.gammavariate(2, 130 / 2))) for _ in range(count)]
    token_ids = range(5, model.config.vocab_size)
    return model, backbone, [[*generator.choices(token_ids, k=n - 1), end] for n in lengths]


def open_search(
    model: PreTrainedModel, backbone: Backbone, shared_beams: bool, dtype: str
) -> AbstractContextManager[BatchSearch]:
    """Prepare a model, and return a context that yields a search of batches.

    Args:
        model: the model.
        backbone: the model's.
        shared_beams: use the search of the harness; otherwise transformers' own.
        dtype: the precision of matrix products.
    """
    tokenizer: Any = Ids()
    shared = shared_beams and backbone.shared_beams
    return searching(model, tokenizer, shared_beams=shared, dtype=getattr(torch, dtype))


def predict(
    model: PreTrainedModel,
    backbone: Backbone,
    sources: Sequence[Sequence[int]],
    shared_beams: bool,
    dtype: str,
    tokens: int,
) -> list[str]:
    """Predict with six beams.

    Args:
        shared_beams: use the search of the harness; otherwise transformers' own. That one gets
            batches of similar lengths, which ``Seq2SeqTrainer.predict`` does not give it.
        tokens: maximum length of a prediction.
    """
    settings = DecodingSettings(max_new_tokens=tokens)
    tokenizer: Any = Ids()
    shared = shared_beams and backbone.shared_beams
    computed_in = getattr(torch, dtype)
    return generate(model, tokenizer, sources, settings, shared_beams=shared, dtype=computed_in)
