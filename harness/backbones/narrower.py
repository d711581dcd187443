"""Linear layers with fewer inputs or outputs, and attentions with fewer heads, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def keep_outputs(linear: Any, kept: Sequence[int]) -> None:
    """Keep some outputs of a linear layer: rows of its weight, and of its bias."""
    linear.weight = _part(linear.weight, 0, kept)
    if linear.bias is not None:
        linear.bias = _part(linear.bias, 0, kept)
    linear.out_features = len(kept)


def keep_inputs(linear: Any, kept: Sequence[int]) -> None:
    """Keep some inputs of a linear layer: columns of its weight."""
    linear.weight = _part(linear.weight, 1, kept)
    linear.in_features = len(kept)


def keep_t5_heads(attention: Any, kept: Sequence[int]) -> None:
    """Keep some heads of T5's attention; the position bias of a head goes with it."""
    width = attention.key_value_proj_dim
    positions = [head * width + i for head in kept for i in range(width)]
    for projection in (attention.q, attention.k, attention.v):
        keep_outputs(projection, positions)
    keep_inputs(attention.o, positions)
    attention.n_heads, attention.inner_dim = len(kept), len(positions)
    if attention.has_relative_attention_bias:
        bias = attention.relative_attention_bias
        bias.weight = _part(bias.weight, 1, kept)
        bias.embedding_dim = len(kept)


def _part(parameter: nn.Parameter, dim: int, kept: Sequence[int]) -> nn.Parameter:
    index = torch.tensor(kept, device=parameter.device)
    values = parameter.detach().index_select(dim, index)
    return nn.Parameter(values, requires_grad=parameter.requires_grad)
