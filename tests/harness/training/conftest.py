"""Tiny backbones whose gradients float32 can resolve."""

from __future__ import annotations

import pytest
from transformers import BartConfig, PreTrainedConfig, T5Config

from harness import Backbone
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5


class TinyT5(T5):
    gated = False

    def config(self) -> PreTrainedConfig:
        variant = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        return T5Config(
            vocab_size=48,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_heads=2,
            num_layers=6,
            decoder_start_token_id=0,
            **(variant if self.gated else {}),
        )


class TinyGatedT5(TinyT5):
    gated = True


class TinyBart(Bart):
    def config(self) -> PreTrainedConfig:
        return BartConfig(
            vocab_size=48,
            d_model=16,
            encoder_layers=6,
            decoder_layers=6,
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


@pytest.fixture(params=["t5", "gated-t5", "bart"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """A backbone of each family in turn.

    Six layers, the least that the alternating pattern prunes. Weights of the usual size: larger
    ones make so sensitive a system that float32's own rounding shows in the third digit.
    """
    families = {"t5": TinyT5, "gated-t5": TinyGatedT5, "bart": TinyBart}
    return families[request.param]("tiny")
