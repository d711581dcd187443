"""The BART family."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import BartConfig, PreTrainedModel

from harness import STACKS, Role, Stack
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
    """BART: its positions are learned embeddings, so any layer can be dropped."""

    config_class = BartConfig
    default_tokens = {  # noqa: RUF012
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    shared_beams = True
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
    width_fields = {"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"}  # noqa: RUF012

    def longest_sequence(self) -> int:
        """Return the number of learned positions."""
        return int(self.config().max_position_embeddings)

    def restart_positions(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Look up the learned positions by each token's place in its sequence."""
        handles = []
        for stack in STACKS:
            restart = _Restart(stack)
            module = model.get_submodule(f"model.{stack}")
            embedding = module.get_submodule("embed_positions")
            handles += [
                module.register_forward_pre_hook(restart.read, with_kwargs=True),
                embedding.register_forward_pre_hook(restart.write, with_kwargs=True),
            ]
        return handles


class _Restart:
    """Passes positions from a stack's keywords to its embedding, which receives no keywords."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.positions: Tensor | None = None

    def read(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        packed = kwargs.get("packed")
        rows = {} if packed is None else {"encoder": packed.source, "decoder": packed.target}
        self.positions = rows[self.stack].positions if rows else None

    def write(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.positions is None:
            return None
        return args, {**kwargs, "position_ids": self.positions}
