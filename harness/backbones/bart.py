"""The BART family."""

from __future__ import annotations

from transformers import BartConfig

from harness.backbone import Role
from harness.backbones.pretrained import Pretrained

_SELF_ATTENTION_AND_FFN: dict[Role, tuple[str, ...]] = {
    "self_attn.q": ("self_attn.q_proj",),
    "self_attn.k": ("self_attn.k_proj",),
    "self_attn.v": ("self_attn.v_proj",),
    "self_attn.out": ("self_attn.out_proj",),
    "ffn.in": ("fc1",),
    "ffn.out": ("fc2",),
}


class Bart(Pretrained):
    """BART: learned positions in the embeddings, so that any layer can go."""

    config_class = BartConfig
    layer_path = {  # noqa: RUF012
        "encoder": "model.encoder.layers",
        "decoder": "model.decoder.layers",
    }
    role_paths = {  # noqa: RUF012
        "encoder": _SELF_ATTENTION_AND_FFN,
        "decoder": {
            **_SELF_ATTENTION_AND_FFN,
            "cross_attn.q": ("encoder_attn.q_proj",),
            "cross_attn.k": ("encoder_attn.k_proj",),
            "cross_attn.v": ("encoder_attn.v_proj",),
            "cross_attn.out": ("encoder_attn.out_proj",),
        },
    }
    depth_fields = {  # noqa: RUF012
        "encoder": ("encoder_layers", "num_hidden_layers"),
        "decoder": ("decoder_layers",),
    }
