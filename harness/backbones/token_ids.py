"""Ids of special tokens, which configurations may lack and training needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from harness.backbones.pretrained import Pretrained

_FIELDS = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")


def complete_token_ids(config: PreTrainedConfig, backbone: Pretrained) -> PreTrainedConfig:
    """Add the ids that a configuration lacks, in place; a decoder starts with the pad token.

    Raises:
        HarnessError: an id is not in the vocabulary.
    """
    for field, default in backbone.default_tokens.items():
        if getattr(config, field, None) is None:
            setattr(config, field, default)
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id
    for field in _FIELDS:
        value = getattr(config, field, None)
        for token in value if isinstance(value, list) else [value]:
            if token is not None and not 0 <= token < config.vocab_size:
                raise HarnessError(
                    f"The configuration of {backbone.name!r} says {field}={token}, but its "
                    f"vocabulary has {config.vocab_size:,} tokens.",
                    "Correct its config.json, or copy the original there.",
                )
    return config


def complete_generation(model: PreTrainedModel) -> None:
    """Copy ids that a model's generation settings lack from its configuration, in place."""
    settings = model.generation_config
    for field in _FIELDS:
        if getattr(settings, field, None) is None:
            setattr(settings, field, getattr(model.config, field, None))


def needed_embeddings(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of embeddings that a tokenizer needs; its ids may have gaps."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return max(vocabulary.values()) + 1
