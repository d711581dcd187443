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
from torch.nn import functional as F  # noqa: N812

_ALIGNED = 8
"""On CUDA, fast products in 16 bits need rows whose length is a multiple of this."""
_MULTIPLE = 64
"""The LM head's rows are filled up to a multiple of this where they are not aligned."""
_CHUNK_BYTES = 2**24
"""Bytes of a chunk's float32 logits under a frozen head; enough for efficient products."""


def head_rows(vocabulary: int) -> int:
    """Return the number of rows of an LM head that is filled up where that pays.

    BART's 50,265 entries are not a multiple of 8. On an H200, the products with its head took 2.1
    of the 11.3 ms of a step of bart-large, in kernels for rows of any length.
    """
    return vocabulary if vocabulary % _ALIGNED == 0 else -(-vocabulary // _MULTIPLE) * _MULTIPLE


def head_in(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight of an LM head in the products' precision, on CUDA with rows of zeros.

    Only in 16 bits: other products do not need aligned rows.

    Args:
        weight: shape (vocabulary, width).
        dtype: the precision of matrix products.

    Returns:
        Shape (``head_rows`` or vocabulary, width).
    """
    low = weight.to(dtype)
    missing = head_rows(len(weight)) - len(weight)
    if not missing or not _pads(low):
        return low
    return F.pad(low, (0, 0, 0, missing))


def _pads(weight: Tensor) -> bool:
    return weight.device.type == "cuda" and weight.element_size() == 2


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
        vocabulary: int,
    ) -> Tensor:
        wants_states, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        width = weight.shape[1]
        # Each chunk adds a matrix of the weight's size, so it should hold as many tokens.
        rows = chunk_rows(len(states), vocabulary, width if wants_weight else 1)
        low = weight if len(weight) > vocabulary else head_in(weight, states.dtype)
        total = states.new_zeros((), dtype=torch.float32)
        counts = labels >= 0 if ignores else None
        if counts is not None:
            labels = labels.clamp(min=0)
        grad_states = torch.empty_like(states) if wants_states else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if wants_bias and bias is not None else None
        for start in range(0, len(states), rows):
            chunk = slice(start, start + rows)
            logits = (states[chunk] @ low.T)[:, :vocabulary].float()
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
            gradient = _as_wide_as(low, gradient)
            if grad_states is not None:
                torch.mm(gradient, low, out=grad_states[chunk])
            gradient = gradient[:, :vocabulary]
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
        return (*gradients, None, None, None, None)


def _as_wide_as(head: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of logits in a head's precision, with zeros for its rows of zeros."""
    if gradient.shape[1] == len(head):
        return gradient.to(head.dtype)
    whole = head.new_zeros(len(gradient), len(head))
    whole[:, : gradient.shape[1]] = gradient
    return whole


def chunked_cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float = 0.0,
    ignores: bool = False,
    vocabulary: int | None = None,
) -> Tensor:
    """Return the cross-entropy to the labels summed over tokens, in nats, a float32 scalar.

    The backward pass can be taken once.

    Args:
        states: the input of the LM head, shape (tokens, width). Its precision is that of the
            products.
        weight: the weight of the LM head, shape (vocabulary, width); a frozen one may have more
            rows, see ``head_in``.
        bias: the bias of the logits, shape (vocabulary,), or None.
        labels: token ids, shape (tokens,).
        label_smoothing: share of a label's probability that is spread over the vocabulary.
        ignores: whether negative labels carry no loss; otherwise every label counts.
        vocabulary: number of logits of a token; by default the rows of the weight.
    """
    vocabulary = len(weight) if vocabulary is None else vocabulary
    result: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, labels, label_smoothing, ignores, vocabulary
    )
    return result
