"""Tiny models of three families, and examples that they can learn."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from transformers import BartConfig, PreTrainedConfig, T5Config

from harness import Backbone
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5
from harness.data.examples import Example


class _TinyT5(T5):
    layers_a_stack = 2
    further: dict[str, Any] = {}  # noqa: RUF012

    def config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=48,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_heads=2,
            num_layers=self.layers_a_stack,
            decoder_start_token_id=0,
            **self.further,
        )


class _TinyBart(Bart):
    layers_a_stack = 2

    def config(self) -> PreTrainedConfig:
        return BartConfig(
            vocab_size=48,
            d_model=16,
            encoder_layers=self.layers_a_stack,
            decoder_layers=self.layers_a_stack,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=40,
            attention_dropout=0.1,
            activation_dropout=0.1,
            init_std=0.2,
            forced_eos_token_id=None,
        )


def _t5(layers: int) -> Backbone:
    backbone = _TinyT5("tiny-t5")
    backbone.layers_a_stack = layers
    return backbone


def _gated_t5(layers: int) -> Backbone:
    backbone = _TinyT5("tiny-gated-t5")
    backbone.layers_a_stack = layers
    backbone.further = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return backbone


def _bart(layers: int) -> Backbone:
    backbone = _TinyBart("tiny-bart")
    backbone.layers_a_stack = layers
    return backbone


FAMILIES: dict[str, Callable[[int], Backbone]] = {"t5": _t5, "gated-t5": _gated_t5, "bart": _bart}
"""Name of a family -> makes a backbone with a number of layers in each stack."""


def copying_examples() -> list[Example]:
    """Return sources of random tokens, whose targets can be learned: some of their tokens."""
    draw = random.Random(0)
    sources = [draw.choices(range(3, 48), k=draw.randint(2, 16)) for _ in range(32)]
    return [Example([*source, 1], [*source[: len(source) // 2], 1]) for source in sources]
