"""A key-value cache that the beams of an example share, and the attention over it.

The usual beam search treats every hypothesis as an example of its own: the encoder's keys and
values are stored once per beam, and whenever hypotheses are reordered, the whole cache is copied
row by row. With six beams this costs more than half of the time of generation on a CPU.

Here the hypotheses of one example share the cache. Cross-attention keys are stored once per
example. Self-attention keys are appended and never moved: a step writes one *slot* for each beam. A
small integer tensor tells which slots belong to the past of a hypothesis, and only that tensor is
reordered. The queries of an example's beams then attend as one sequence.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AttentionInterface, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache, DynamicLayer

ATTENTION = "beams_as_queries"
"""Name of the attention implementation in transformers' registry."""

_FIRST_STEPS = 16
"""Steps that a new cache has room for; the room doubles when it is full."""


def beam_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend with all beams of an example as one sequence of queries.

    Args:
        module: the attention module; not used.
        query: shape (examples * beams, heads, queries, width).
        key: shape (examples, heads, keys, width); in self-attention the keys are positions x slots.
        value: the shape of ``key``.
        attention_mask: added to the scores; shape (examples, 1, 1 or beams, keys).
        scaling: the factor of the scores.
        position_bias: T5's position bias; shape (1, heads, queries, at least positions).

    Returns:
        (the output of shape (examples * beams, queries, heads, width), None in place of the
        probabilities)
    """
    examples, heads, keys, width = key.shape
    beams, queries = query.shape[0] // examples, query.shape[2]
    if position_bias is not None:
        # T5 takes the number of keys for the number of positions, so its bias is too long where a
        # position has several slots. All slots of a position share its bias.
        slots = attention_mask.shape[2]
        bias = position_bias[..., : keys // slots]
        attention_mask = attention_mask + bias.repeat_interleave(slots, -1)
    folded = query.view(examples, beams, heads, queries, width).transpose(1, 2).flatten(2, 3)
    output = F.scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask.to(query.dtype), scale=scaling
    )
    output = output.view(examples, heads, beams, queries, width).permute(0, 2, 3, 1, 4)
    return output.flatten(0, 1), None


AttentionInterface.register(ATTENTION, beam_attention)


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """The self-attention keys and values of a layer.

    Both have the shape (examples, heads, steps, beams, width).

    Args:
        beams: number of slots that a step writes for each example.
    """

    def __init__(self, beams: int) -> None:
        super().__init__()
        self.beams = beams
        self.steps = 0
        self.keys: Tensor
        self.values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values of a step, and return those of all steps.

        Args:
            key_states: shape (examples * beams, heads, 1, width).
            value_states: the shape of ``key_states``.

        Returns:
            (keys, values), each of shape (examples, heads, steps * beams, width)
        """
        if not self.steps:
            self.keys, self.values = self._room(key_states), self._room(value_states)
            self.is_initialized = True
        elif self.steps == self.keys.shape[2]:
            self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], 2)
            self.values = torch.cat([self.values, torch.empty_like(self.values)], 2)
        self.keys[:, :, self.steps] = self._slots(key_states)
        self.values[:, :, self.steps] = self._slots(value_states)
        self.steps += 1
        return (
            self.keys[:, :, : self.steps].flatten(2, 3),
            self.values[:, :, : self.steps].flatten(2, 3),
        )

    def _slots(self, states: Tensor) -> Tensor:
        _rows, heads, _, width = states.shape
        return states.view(-1, self.beams, heads, width).transpose(1, 2)

    def _room(self, states: Tensor) -> Tensor:
        rows, heads, _, width = states.shape
        return states.new_empty(rows // self.beams, heads, _FIRST_STEPS, self.beams, width)

    def get_seq_length(self) -> int:
        """Return the number of steps; each holds a slot for every beam."""
        return self.steps


class BeamCache(EncoderDecoderCache):  # type: ignore[misc]
    """A decoder's cache: self-attention slots for each beam, cross-attention once per example."""

    def __init__(self, beams: int) -> None:
        super().__init__(Cache(layer_class_to_replicate=partial(SlotLayer, beams)), DynamicCache())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the examples ``indices`` only."""
        for layer in (*self.self_attention_cache.layers, *self.cross_attention_cache.layers):
            layer.batch_select_indices(indices)
