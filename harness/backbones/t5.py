"""The T5 family: T5, T5 v1.1 and Flan-T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel, T5Config

from harness import STACKS, Role, Stack, Weights
from harness.backbones.narrower import keep_t5_heads
from harness.backbones.pretrained import Pretrained


class T5(Pretrained):
    """T5: a layer is a list of sub-layers, the feed-forward last; block 1 has the position bias."""

    config_class = T5Config
    # A T5 decoder starts with the pad token, which complete_token_ids uses by default.
    default_tokens = {"pad_token_id": 0, "eos_token_id": 1}  # noqa: RUF012
    shared_beams = True
    layer_path = {"encoder": "encoder.block", "decoder": "decoder.block"}  # noqa: RUF012
    role_paths = {  # noqa: RUF012
        "encoder": {
            "self_attn.q": ("layer.0.SelfAttention.q",),
            "self_attn.k": ("layer.0.SelfAttention.k",),
            "self_attn.v": ("layer.0.SelfAttention.v",),
            "self_attn.out": ("layer.0.SelfAttention.o",),
            "ffn.in": (
                "layer.1.DenseReluDense.wi",
                "layer.1.DenseReluDense.wi_0",
                "layer.1.DenseReluDense.wi_1",
            ),
            "ffn.out": ("layer.1.DenseReluDense.wo",),
        },
        "decoder": {
            "self_attn.q": ("layer.0.SelfAttention.q",),
            "self_attn.k": ("layer.0.SelfAttention.k",),
            "self_attn.v": ("layer.0.SelfAttention.v",),
            "self_attn.out": ("layer.0.SelfAttention.o",),
            "cross_attn.q": ("layer.1.EncDecAttention.q",),
            "cross_attn.k": ("layer.1.EncDecAttention.k",),
            "cross_attn.v": ("layer.1.EncDecAttention.v",),
            "cross_attn.out": ("layer.1.EncDecAttention.o",),
            "ffn.in": (
                "layer.2.DenseReluDense.wi",
                "layer.2.DenseReluDense.wi_0",
                "layer.2.DenseReluDense.wi_1",
            ),
            "ffn.out": ("layer.2.DenseReluDense.wo",),
        },
    }
    depth_fields = {  # noqa: RUF012
        "encoder": ("num_layers",),
        # transformers reads the depth of the cache from decoder_layers; without it, it would
        # take the encoder's depth, which is too little if pruning left the decoder deeper.
        "decoder": ("num_decoder_layers", "decoder_layers"),
    }
    # Both stacks have one width.
    width_fields = {"encoder": "d_ff", "decoder": "d_ff"}  # noqa: RUF012

    def mend(self, model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
        """Give T5 v1.1 and Flan-T5 a separate LM head.

        The published models have one, and their configurations say so. Transformers 5 ignores
        that and ties the head to the embedding, unless a checkpoint holds both. It only keeps one
        difference: the output of a tied model is scaled.
        """
        if model.config.scale_decoder_outputs:
            return model
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if weights == "random":
            head.weight = nn.Parameter(torch.empty_like(embedding.weight))
            nn.init.normal_(head.weight, std=model.config.initializer_factor)
        if head.weight is not embedding.weight:
            # Otherwise the next resize_token_embeddings would tie them.
            model._tied_weights_keys = {
                tied: to
                for tied, to in model._tied_weights_keys.items()
                if tied != "lm_head.weight"
            }
            model.all_tied_weights_keys.pop("lm_head.weight", None)
        return model

    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop layers; if block 1 is dropped, its position bias moves to the new first block."""
        old_first = self._first_attention(model, stack)
        super().keep_layers(model, stack, kept)
        new_first = self._first_attention(model, stack)
        if new_first is not old_first:
            new_first.relative_attention_bias = old_first.relative_attention_bias
            new_first.has_relative_attention_bias = True

    def keep_heads(
        self,
        model: PreTrainedModel,
        stack: Stack,
        role: Role,
        kept: Sequence[Sequence[int]],
    ) -> None:
        """Drop heads with their position bias, and store the new number."""
        (path,) = self.role_paths[stack][role]
        for layer, heads in zip(self.layers(model, stack), kept, strict=True):
            attention: Any = layer.get_submodule(path.removesuffix(".o"))
            keep_t5_heads(attention, heads)
        self.set_field(model, "num_heads", len(kept[0]))

    def restart_positions(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Compute the relative position bias once per stack, for the longest sequence only."""
        cross = self.layers(model, "decoder")[0].get_submodule("layer.1.EncDecAttention")
        return [
            *(
                self._first_attention(model, stack).register_forward_pre_hook(
                    _bias_of_longest, with_kwargs=True
                )
                for stack in STACKS
            ),
            cross.register_forward_pre_hook(_no_bias, with_kwargs=True),
        ]

    def _first_attention(self, model: PreTrainedModel, stack: Stack) -> Any:
        return self.layers(model, stack)[0].get_submodule("layer.0.SelfAttention")

    def _depth_configs(
        self, model: PreTrainedModel, stack: Stack
    ) -> list[tuple[PreTrainedConfig, tuple[str, ...]]]:
        # Each T5 stack holds a copy of the configuration, with its own depth as num_layers.
        own = model.get_submodule(stack).config
        return [*super()._depth_configs(model, stack), (own, ("num_layers",))]


def _bias_of_longest(
    attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    packed = kwargs.get("packed")
    if packed is None:
        return None
    row = packed.target if attention.is_decoder else packed.source
    bias = attention.compute_bias(row.longest, row.longest)
    return args, {**kwargs, "position_bias": bias}


def _no_bias(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    # T5 would add a mask of zeros with the size of two whole rows.
    if kwargs.get("packed") is None:
        return None
    return args, {**kwargs, "position_bias": torch.empty(0)}
