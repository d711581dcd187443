"""Prefix tuning (Li and Liang 2021): trained keys and values in front of the decoder's own."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressors.adapter import Adapter, others
from compressors.prompts import longer_mask
from harness import HarnessError, Options

if TYPE_CHECKING:
    from peft import PrefixTuningConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class PrefixOptions(Options):
    """Options of ``prefix``."""

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens in front of each target, in every layer of the decoder."""
    hidden: int = Field(0, ge=0)
    """Width of a network that makes keys and values; 0 trains them themselves."""


class Prefix(Adapter):
    """Freezes the model and trains what the decoder's self-attention sees before each target.

    The keys and values come from PEFT's own module. A hook puts them into the decoder's cache, as
    PEFT does, so that positions of the target begin behind them. Each layer has its own; PEFT lets
    layers of an encoder-decoder share them, and its ``generate`` loses them with transformers 5,
    so that there is no adapter for PEFT.
    """

    Options = PrefixOptions
    packs: ClassVar[bool] = False
    graph_safe: ClassVar[bool] = False
    shares_beams: ClassVar[bool] = False
    conflicts: ClassVar[frozenset[str]] = others("prefix")

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Add a module of the compressor's name, and a hook that fills the cache."""
        import torch
        from peft import PrefixEncoder

        config = self.config(model, backbone)
        with torch.device("meta" if context.skeleton else "cpu"):
            made: Any = PrefixEncoder(config)
        encoder: nn.Module = made
        model.requires_grad_(False)
        model.add_module(self.name, encoder.to(next(model.parameters()).device))
        hook = partial(_insert, encoder, config, backbone.longest_sequence())
        model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
        return model

    def config(self, model: PreTrainedModel, backbone: Backbone) -> PrefixTuningConfig:
        """Return PEFT's configuration, with the sizes of the decoder as it is now."""
        from peft import PrefixTuningConfig

        settings = model.config
        heads = getattr(settings, "decoder_attention_heads", None) or settings.num_heads
        keys = next(iter(backbone.modules(model, "self_attn.k").values()))
        return PrefixTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.options.tokens,
            num_layers=len(backbone.layers(model, "decoder")),
            num_attention_heads=heads,
            token_dim=keys.out_features,
            prefix_projection=self.options.hidden > 0,
            encoder_hidden_size=self.options.hidden,
        )

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Raise an error: no weight of the backbone can stand for additional keys and values."""
        raise HarnessError(
            f"{self.name}: a prefix cannot be merged into the backbone's weights.",
            "The trained weights are in the run's folder: weights.safetensors",
        )


def _insert(
    encoder: nn.Module,
    config: PrefixTuningConfig,
    longest: int | None,
    decoder: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put the prefix into the decoder's cache before its first step."""
    from compressors.prefix_cache import filled_cache, passing_cache

    name = "cache" if "cache" in signature(decoder.forward).parameters else "past_key_values"
    cache = kwargs.get(name)
    states = args[0] if args else kwargs.get("input_ids")
    if states is None:
        states = kwargs["inputs_embeds"]
    count = config.num_virtual_tokens
    seen = 0 if cache is None else cache.get_seq_length()
    target = max(seen - count, 0) + states.shape[1]
    if longest is not None and count + target > longest:
        raise HarnessError(
            f"A prefix of {count} tokens and a target of {target} are more than the model's "
            f"{longest} positions.",
            f"Shorten the targets: --set task_options.max_target_length={longest - count}",
        )
    given = {**kwargs, "attention_mask": longer_mask(kwargs.get("attention_mask"), count)}
    if not seen:
        pairs = _pairs(encoder, config, len(states))
        passing = cache is None and kwargs.get("use_cache") is False
        given[name] = passing_cache(pairs) if passing else filled_cache(cache, pairs)
    return args, given


def _pairs(
    encoder: nn.Module, config: PrefixTuningConfig, rows: int
) -> list[tuple[Tensor, Tensor]]:
    """Return keys and values of each layer, of shape (rows, heads, tokens, width of a head)."""
    import torch

    device = next(encoder.parameters()).device
    flat: Tensor = encoder(torch.arange(config.num_virtual_tokens, device=device))
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        flat = flat.to(torch.get_autocast_dtype(device.type))
    assert config.num_layers
    assert config.num_attention_heads
    # (tokens, layers x 2, heads, width)
    states = flat.view(len(flat), 2 * config.num_layers, config.num_attention_heads, -1)
    each = states.permute(1, 2, 0, 3)[:, None].expand(-1, rows, -1, -1, -1)
    return list(zip(each[::2], each[1::2], strict=True))
