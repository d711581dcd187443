"""Beam search of an encoder-decoder, with the results of transformers' search and less work.

It is the search of transformers' ``generate``, with the same meaning of the settings. It differs in
three points: an example that has ended leaves the batch at once, hypotheses share a cache (see
``beam_cache``), and repeated n-grams are found by comparing whole tensors.
"""

from __future__ import annotations

from inspect import signature

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from harness.evaluation.beam_cache import BeamCache
from harness.evaluation.search_state import (
    SpecialTokens,
    begin,
    can_improve,
    extended,
)
from harness.spec.decoding import DecodingSettings


def beam_search(
    model: PreTrainedModel, input_ids: Tensor, lengths: Tensor, settings: DecodingSettings
) -> Tensor:
    """Return the best hypothesis of every example.

    Args:
        model: the model in evaluation mode, with the attention implementation of ``beam_cache``.
        input_ids: the sources, shape (examples, source length), padded on the right.
        lengths: tokens of each source, shape (examples,).
        settings: the settings of the search.

    Returns:
        Token ids, shape (examples, at most 1 + max_new_tokens), start token first, padded on the
        right.
    """
    special = SpecialTokens.of(model)
    decoder = Decoder(model, input_ids, lengths, settings.beams)
    search = begin(len(input_ids), settings, special, input_ids.device)
    results = torch.full_like(search.ended[:, 0], special.pad)
    for step in range(settings.max_new_tokens):
        logits = decoder.step(search.tokens[..., -1], search.slots)
        search = extended(search, logits, settings, special)
        improvable = can_improve(search, step + 1, settings)
        if not improvable.all():
            final = ~improvable
            results[search.example[final]] = search.ended[final, 0]
            rows = improvable.nonzero().squeeze(1)
            if not len(rows):
                return results
            search = search.select(rows)
            decoder.keep(rows)
    results[search.example] = search.ended[:, 0]
    return results


class Decoder:
    """Runs the model's decoder one step at a time, for the examples whose search goes on."""

    def __init__(
        self, model: PreTrainedModel, input_ids: Tensor, lengths: Tensor, beams: int
    ) -> None:
        self.model = model
        self.beams = beams
        visible = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
        self.mask = _additive(visible[:, None, None])
        encoder = model.get_encoder()
        self.encoded = encoder(input_ids=input_ids, attention_mask=self.mask).last_hidden_state
        self.cache = BeamCache(beams)
        parameters = signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"

    def step(self, tokens: Tensor, slots: Tensor) -> Tensor:
        """Decode one step.

        Args:
            tokens: last token of each hypothesis, shape (examples, beams).
            slots: see ``Search``.

        Returns:
            Logits in float32, shape (examples, beams, vocabulary).
        """
        own = slots[..., None] == torch.arange(self.beams, device=slots.device)
        logits: Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded),
            attention_mask=self.mask,
            decoder_input_ids=tokens.reshape(-1, 1),
            decoder_attention_mask=_additive(own.flatten(2)[:, None]),
            use_cache=True,
            **{self.cache_name: self.cache},
        ).logits
        return logits.float().view(*tokens.shape, -1)

    def keep(self, rows: Tensor) -> None:
        """Keep the examples ``rows`` only."""
        self.mask, self.encoded = self.mask[rows], self.encoded[rows]
        self.cache.batch_select_indices(rows)


def _additive(visible: Tensor) -> Tensor:
    """Turn a boolean mask of visible keys into one that is added to attention scores."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)
