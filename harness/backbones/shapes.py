"""The shapes of well-known models, so that plans and profiles need no network.

Sources: the config.json files of the models on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A published model.

    Attributes:
        hub_id: hub id of its weights and tokenizer.
        family: ``module:Class`` below ``harness.backbones`` that defines its roles.
        tokenizer_size: number of entries of its tokenizer; T5's embedding is larger.
        config: arguments of the family's transformers configuration.
        summary: summary line for listings.
    """

    hub_id: str
    family: str
    tokenizer_size: int
    summary: str
    config: dict[str, Any] = field(default_factory=dict)


def _t5(hub_id: str, size: tuple[int, int, int, int, int], parameters: str, **more: Any) -> Shape:
    d_model, d_kv, d_ff, layers, heads = size
    config = {
        "d_model": d_model,
        "d_kv": d_kv,
        "d_ff": d_ff,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "vocab_size": 32128,
        "decoder_start_token_id": 0,
        "n_positions": 512,
        **more,
    }
    return Shape(hub_id, "t5:T5", 32100, f"{layers}+{layers} layers, {parameters}", config)


def _bart(hub_id: str, d_model: int, layers: int, heads: int, parameters: str) -> Shape:
    config = {
        "d_model": d_model,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * d_model,
        "decoder_ffn_dim": 4 * d_model,
        "vocab_size": 50265,
        "max_position_embeddings": 1024,
        "activation_dropout": 0.1,
        "attention_dropout": 0.1,
        "dropout": 0.1,
        "forced_bos_token_id": 0,
    }
    return Shape(hub_id, "bart:Bart", 50265, f"{layers}+{layers} layers, {parameters}", config)


# (d_model, d_kv, d_ff, layers, heads)
_GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_V1 = {
    "small": ((512, 64, 2048, 6, 8), "61 M"),
    "base": ((768, 64, 3072, 12, 12), "223 M"),
    "large": ((1024, 64, 4096, 24, 16), "738 M"),
    "3b": ((1024, 128, 16384, 24, 32), "2.9 B"),
    "11b": ((1024, 128, 65536, 24, 128), "11.3 B"),
}
_V1_1 = {
    "small": ((512, 64, 1024, 8, 6), "77 M"),
    "base": ((768, 64, 2048, 12, 12), "248 M"),
    "large": ((1024, 64, 2816, 24, 16), "783 M"),
    "xl": ((2048, 64, 5120, 24, 32), "2.8 B"),
    "xxl": ((4096, 64, 10240, 24, 64), "11.1 B"),
}

SHAPES: dict[str, Shape] = {
    **{f"t5-{s}": _t5(f"google-t5/t5-{s}", *v) for s, v in _V1.items()},
    **{f"t5-v1_1-{s}": _t5(f"google/t5-v1_1-{s}", *v, **_GATED) for s, v in _V1_1.items()},
    **{f"flan-t5-{s}": _t5(f"google/flan-t5-{s}", *v, **_GATED) for s, v in _V1_1.items()},
    "bart-base": _bart("facebook/bart-base", 768, 6, 12, "139 M"),
    "bart-large": _bart("facebook/bart-large", 1024, 12, 16, "406 M"),
}
