"""Cross-entropy over the vocabulary in chunks of tokens, so that never all logits are in memory.

For 1,024 target tokens and 32,128 entries the logits alone are 132 MB in float32, and the usual
implementation holds them about three times (logits, log-probabilities, gradient). Here the forward
pass computes the gradient of the states chunk by chunk, and frees the logits of a chunk before the
next one.

Chunks are small where the LM head is frozen. Where it is trained they have as many tokens as the
head is wide, since each chunk adds a product of the head's size to its gradient: on two CPU cores
that took 25 to 40 % off the loss of t5-small's and bart-base's shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_BYTES = 2**24
"""Bytes of a chunk's float32 logits under a frozen head; enough for efficient products."""


def chunk_rows(tokens: int, vocabulary: int, least: int = 1) -> int:
    """Return the number of tokens in a chunk, so that all chunks have about as many.

    Args:
        tokens: the number of all tokens, at least one.
        vocabulary: the number of logits of a token.
        least: the number of tokens that a chunk should have at least.
    """
    rows = max(_CHUNK_BYTES // (vocabulary * 4), least)
    chunks = -(-tokens // rows)
    return -(-tokens // chunks)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
        ignores: bool,
    ) -> Tensor:
        wants_states, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        vocabulary, width = weight.shape
        # Each chunk adds a matrix of the weight's size, so it should hold as many tokens.
        rows = chunk_rows(len(states), vocabulary, width if wants_weight else 1)
        low = weight.to(states.dtype)
        total = states.new_zeros((), dtype=torch.float32)
        counts = labels >= 0 if ignores else None
        if counts is not None:
            labels = labels.clamp(min=0)
        grad_states = torch.empty_like(states) if wants_states else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if wants_bias and bias is not None else None
        for start in range(0, len(states), rows):
            chunk = slice(start, start + rows)
            logits = (states[chunk] @ low.T).float()
            if bias is not None:
                logits += bias
            probabilities = torch.softmax(logits, -1)
            index = labels[chunk, None]
            # The largest probability is at least 1 / vocabulary, so its logarithm cannot underflow.
            normaliser = logits.amax(1) - probabilities.amax(1).log()
            target = logits.gather(1, index)[:, 0]
            if smoothing:
                target = torch.lerp(target, logits.mean(1), smoothing)
            losses = normaliser - target
            total += (losses if counts is None else losses * counts[chunk]).sum()
            del logits
            # The gradient of the logits: the probabilities minus the target distribution, which is
            # one-hot except for the share that smoothing spreads.
            if smoothing:
                probabilities -= smoothing / probabilities.shape[1]
            hot = normaliser.new_full(index.shape, smoothing - 1)
            gradient = probabilities.scatter_add_(1, index, hot)
            del probabilities  # Otherwise the next product would run beside two copies.
            if counts is not None:
                gradient *= counts[chunk, None]
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            gradient = gradient.to(states.dtype)
            if grad_states is not None:
                torch.mm(gradient, low, out=grad_states[chunk])
            if grad_weight is not None and grad_weight.dtype == gradient.dtype:
                grad_weight.addmm_(gradient.T, states[chunk])
            elif grad_weight is not None:
                grad_weight += gradient.T @ states[chunk]
        ctx.save_for_backward(grad_states, grad_weight, grad_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # In place, because the backward pass is taken once.
        gradients = [None if t is None else t.mul_(gradient) for t in ctx.saved_tensors]
        return (*gradients, None, None, None)


def chunked_cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float = 0.0,
    ignores: bool = False,
) -> Tensor:
    """Return the cross-entropy to the labels summed over tokens, in nats, a float32 scalar.

    The backward pass can be taken once.

    Args:
        states: the input of the LM head, shape (tokens, width). Its precision is that of the
            products.
        weight: the weight of the LM head, shape (vocabulary, width).
        bias: the bias of the logits, shape (vocabulary,), or None.
        labels: token ids, shape (tokens,).
        label_smoothing: share of a label's probability that is spread over the vocabulary.
        ignores: whether negative labels carry no loss; otherwise every label counts.
    """
    result: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, labels, label_smoothing, ignores
    )
    return result
