"""Tiny models of three families, whose random weights do not depend on the seed of a run."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import (
    BartConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
)

from harness.api.backbone import Weights
from harness.backbones.bart import Bart
from harness.backbones.pretrained import Pretrained
from harness.backbones.t5 import T5
from harness.data.examples import Example
from harness.errors import HarnessError

_VOCABULARY = 64
_SIZES: dict[str, Any] = {"vocab_size": _VOCABULARY, "d_model": 128}
"""As wide as the methods of PEFT need with their defaults."""

PRUNING = "lprun:encoder=1.3,decoder=2-3"
"""Drops a layer in the middle of the encoder, and the first layer of the decoder."""


class _Tiny(Pretrained):
    """A backbone without files: three layers in each stack, random weights, no tokenizer.

    Attributes:
        weights_seed: seeds the weights.
    """

    weights_seed = 0
    _built_once: tuple[int, PreTrainedModel] | None = None

    def load(self, weights: Weights) -> PreTrainedModel:
        """Return the model with random weights; the global generator is left as it was."""
        # Checks load it a hundred times, and a copy takes a fraction of the time to build one.
        if self._built_once is None or self._built_once[0] != self.weights_seed:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.weights_seed)
                self._built_once = self.weights_seed, super().load("random")
        return copy.deepcopy(self._built_once[1])

    def version(self) -> str:
        """Return the name: there are no files."""
        return self.reference

    def published(self) -> None:
        """Return None: there are no files."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Raise an error: its tokens are numbers without a text."""
        raise HarnessError(f"{self.name} has no tokenizer.")

    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Drop the last rows of the embedding, as those that T5 has beyond its tokenizer."""
        if model.get_input_embeddings().num_embeddings == _VOCABULARY:
            model.resize_token_embeddings(_VOCABULARY - 4, mean_resizing=False)


class TinyT5(_Tiny, T5):
    """T5: one feed-forward input, tied embeddings, no biases."""

    def config(self) -> PreTrainedConfig:
        """Return the configuration."""
        return T5Config(**_SIZES, **_T5)


class TinyGatedT5(_Tiny, T5):
    """T5 v1.1: a gated feed-forward, and an LM head of its own."""

    def config(self) -> PreTrainedConfig:
        """Return the configuration."""
        gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        return T5Config(**_SIZES, **_T5, **gated)


class TinyBart(_Tiny, Bart):
    """BART: learned positions, and biases everywhere."""

    def config(self) -> PreTrainedConfig:
        """Return the configuration."""
        return BartConfig(
            **_SIZES,
            encoder_layers=3,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=256,
            decoder_ffn_dim=256,
            max_position_embeddings=64,
            attention_dropout=0.1,
            activation_dropout=0.1,
            init_std=0.2,
            forced_eos_token_id=None,
        )


_T5: dict[str, Any] = {
    "d_kv": 32,
    "d_ff": 256,
    "num_heads": 4,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "decoder_start_token_id": 0,
}

FAMILIES: dict[str, type[_Tiny]] = {"t5": TinyT5, "gated-t5": TinyGatedT5, "bart": TinyBart}
"""Short name of a family -> its tiny backbone."""

EXAMPLES = (
    Example([5, 7, 11, 13, 17, 19, 2, 1], [8, 9, 30, 1]),
    Example([9, 1], [31, 42, 44, 50, 6, 1]),
    Example([40, 41, 42, 43, 1], [1]),
    Example([60, 59, 12], [33, 34, 1]),
)
"""Examples of unequal lengths, which a batch pads and a packed row does not."""
IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
"""Sources of which logits are compared."""
