"""Pegasus (Zhang et al. 2020): a family of transformers that is not built in."""

from __future__ import annotations

from transformers import PegasusConfig

from harness import Pretrained, Role

_ATTENTION: dict[Role, tuple[str, ...]] = {
    "self_attn.q": ("self_attn.q_proj",),
    "self_attn.k": ("self_attn.k_proj",),
    "self_attn.v": ("self_attn.v_proj",),
    "self_attn.out": ("self_attn.out_proj",),
}
_FEED_FORWARD: dict[Role, tuple[str, ...]] = {"ffn.in": ("fc1",), "ffn.out": ("fc2",)}
_CROSS_ATTENTION: dict[Role, tuple[str, ...]] = {
    "cross_attn.q": ("encoder_attn.q_proj",),
    "cross_attn.k": ("encoder_attn.k_proj",),
    "cross_attn.v": ("encoder_attn.v_proj",),
    "cross_attn.out": ("encoder_attn.out_proj",),
}


class Pegasus(Pretrained):
    """Pegasus: the modules of BART under the same names, sinusoidal positions."""

    config_class = PegasusConfig
    default_tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    layer_path = {"encoder": "model.encoder.layers", "decoder": "model.decoder.layers"}
    role_paths = {
        "encoder": {**_ATTENTION, **_FEED_FORWARD},
        "decoder": {**_ATTENTION, **_CROSS_ATTENTION, **_FEED_FORWARD},
    }
    depth_fields = {
        "encoder": ("encoder_layers", "num_hidden_layers"),
        "decoder": ("decoder_layers",),
    }

    def __init__(self, reference: str) -> None:
        super().__init__(reference.removeprefix("pegasus:"))

    def longest_sequence(self) -> int:
        """Return the number of positions: a longer source is an error before training."""
        return int(self.config().max_position_embeddings)
