"""Caches of a decoder that begin with trained keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, of shape (rows, heads, tokens, width of a head)."""


def filled_cache(cache: EncoderDecoderCache | None, pairs: Pairs) -> EncoderDecoderCache:
    """Write the prefix into an empty cache that later steps extend, and return it.

    Args:
        cache: the cache of a search; None makes a new one.
        pairs: keys and values of each layer.
    """
    cache = cache or EncoderDecoderCache(DynamicCache(), DynamicCache())
    for number, (keys, values) in enumerate(pairs):
        cache.self_attention_cache.update(keys, values, number)
    return cache


def passing_cache(pairs: Pairs) -> EncoderDecoderCache:
    """Return a cache that shows the prefix and keeps nothing else.

    With activation checkpointing a layer is computed twice; a cache that keeps keys would have
    those of the first time.
    """
    prefix, nothing = DynamicCache(), DynamicCache()
    prefix.layers = [_Passing(keys, values) for keys, values in pairs]
    nothing.layers = [_Passing(keys[..., :0, :], values[..., :0, :]) for keys, values in pairs]
    return _PassingCache(prefix, nothing)


class _PassingCache(EncoderDecoderCache):  # type: ignore[misc]
    """A cache whose cross-attention is computed each time."""

    @property
    def is_updated(self) -> dict[int, bool]:
        """Return that no layer has cross-attention in the cache."""
        return {}

    @is_updated.setter
    def is_updated(self, _: Any) -> None: ...


class _Passing(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values that do not grow."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the prefix and the states behind it."""
        if not self.keys.numel():
            return key_states, value_states
        keys = torch.cat([self.keys.to(key_states.dtype), key_states], 2)
        return keys, torch.cat([self.values.to(value_states.dtype), value_states], 2)
