"""The beam search of transformers, for models that ``beam_search`` does not support."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from harness.spec.decoding import DecodingSettings


def library_search(
    model: PreTrainedModel, input_ids: Tensor, lengths: Tensor, settings: DecodingSettings
) -> Tensor:
    """Return the best hypothesis of every example; see ``beam_search`` for the arguments.

    The model's own generation settings are replaced during the search, except for its special
    tokens. Arguments to ``generate`` would override only the settings that they name, and a model
    of the hub may come with a length penalty or a minimum length.
    """
    own = model.generation_config
    # Greedy search uses neither, and transformers warns of settings that it ignores.
    beam_settings = {
        "early_stopping": settings.early_stopping,
        "length_penalty": settings.length_penalty,
    }
    special = {name: getattr(own, name) for name in own.to_dict() if name.endswith("token_id")}
    model.generation_config = GenerationConfig(
        num_beams=settings.beams,
        max_new_tokens=settings.max_new_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram,
        min_new_tokens=settings.min_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        do_sample=False,
        **(beam_settings if settings.beams > 1 else {}),
        **special,
    )
    mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
    try:
        generated: Tensor = model.generate(input_ids=input_ids, attention_mask=mask.long())
    finally:
        model.generation_config = own
    return generated
