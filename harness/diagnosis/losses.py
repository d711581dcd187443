"""Losses of single examples, and the difference that a change of the model makes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutput

from harness.reporting.summary import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import BatchEncoding, PreTrainedModel

    from harness.api.arrays import FloatArray

Batches = Sequence["BatchEncoding"]


@torch.no_grad()
def example_losses(
    model: PreTrainedModel, batches: Batches, encoded: Sequence[Tensor] | None = None
) -> FloatArray:
    """Return the sum of the cross-entropies of each example's target tokens, in nats.

    Args:
        model: the model, without dropout.
        batches: batches with ``input_ids``, ``attention_mask`` and ``labels``.
        encoded: the encoder's output for each batch, if it is known.

    Returns:
        An array of shape (examples,).
    """
    losses = []
    for number, batch in enumerate(batches):
        inputs = dict(batch)
        if encoded is not None:
            inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoded[number])
        logits = model(**inputs).logits.float()
        terms = cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
        losses.append(terms.sum(dim=1).double())
    return torch.cat(losses).numpy(force=True)


@torch.no_grad()
def encode(model: PreTrainedModel, batches: Batches) -> list[Tensor]:
    """Return the encoder's output for each batch, shape (examples, tokens, width)."""
    encoder = model.get_encoder()
    return [
        encoder(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).last_hidden_state
        for b in batches
    ]


def target_tokens(batches: Batches) -> FloatArray:
    """Return the number of target tokens of each example, shape (examples,)."""
    counts = [(batch["labels"] != -100).sum(dim=1).double() for batch in batches]
    return torch.cat(counts).numpy(force=True)


def per_token(losses: FloatArray, tokens: FloatArray) -> Estimate:
    """Return the sum of losses divided by the sum of tokens, with its 95 % interval.

    The interval is Student's t with the linearized variance of a ratio (Cochran 1977, section
    2.11). It covers the sampling of examples.

    Args:
        losses: sums of the examples, in nats; or differences of such sums.
        tokens: target tokens of the examples.
    """
    from scipy.special import stdtrit

    count = len(losses)
    value = float(losses.sum() / tokens.sum())
    if count < 2:
        return Estimate(value=value)
    residuals = losses - value * tokens
    error = math.sqrt(count / (count - 1) * float(np.square(residuals).sum())) / tokens.sum()
    half = float(stdtrit(count - 1, 0.975)) * error
    return Estimate(value=value, low=value - half, high=value + half)


def with_shared_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model's modules; the weights and buffers are the model's own."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


@contextmanager
def without_dropout(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode, and back into training mode if it was in it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
