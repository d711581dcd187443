"""Beam search of an encoder-decoder, with the results of transformers' search and less work.

It is the search of transformers' ``generate``, with the same meaning of the settings. It differs in
three points: an example that has ended leaves the batch at once, hypotheses share a cache (see
``beam_cache``), and repeated n-grams are found by comparing whole tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from inspect import signature

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from harness.evaluation.beam_cache import BeamCache
from harness.spec.decoding import DecodingSettings

_NEVER = -1e9
"""Score of hypotheses that do not exist: lower than any real score, and finite, so that no sum is
NaN."""


@dataclass(frozen=True)
class SpecialTokens:
    """The special token ids that the search needs, from a model's generation settings.

    Attributes:
        start: the decoder's first input.
        end: ids that end a hypothesis.
        pad: fills sources and shorter hypotheses.
        forced_first: the first token of every hypothesis, or None (set for BART-large).
        forced_last: the last token of a hypothesis of maximum length, or None (set for BART).
    """

    start: int
    end: tuple[int, ...]
    pad: int
    forced_first: int | None
    forced_last: int | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> SpecialTokens:
        """Read the ids of a model; its other generation settings are ignored."""
        config = model.generation_config
        end = config.eos_token_id
        return cls(
            start=config.decoder_start_token_id,
            end=tuple(end) if isinstance(end, list) else (end,),
            pad=config.pad_token_id,
            forced_first=config.forced_bos_token_id,
            forced_last=config.forced_eos_token_id,
        )


@dataclass(frozen=True)
class _Search:
    """The state of the examples whose search goes on; the first axis is the example.

    Attributes:
        example: row of each example in the batch, shape (examples,).
        tokens: open hypotheses, best first, shape (examples, beams, length).
        scores: their summed log-probabilities in nats, shape (examples, beams).
        slots: cache slot of each of their past steps, shape (examples, beams, steps).
        ended: finished hypotheses, best first, shape (examples, beams, maximum length).
        ended_scores: log-probabilities of the finished hypotheses, divided by length to the power
            of the length penalty, shape (examples, beams).
    """

    example: Tensor
    tokens: Tensor
    scores: Tensor
    slots: Tensor
    ended: Tensor
    ended_scores: Tensor

    def select(self, rows: Tensor) -> _Search:
        return _Search(*(getattr(self, field.name)[rows] for field in fields(self)))


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
    decoder = _Decoder(model, input_ids, lengths, settings.beams)
    search = _begin(len(input_ids), settings, special, input_ids.device)
    results = torch.full_like(search.ended[:, 0], special.pad)
    for step in range(settings.max_new_tokens):
        logits = decoder.step(search.tokens[..., -1], search.slots)
        log_probs = _log_probs(logits, search.tokens, settings)
        _forbid(log_probs, search.tokens, settings, special)
        search = _advance(search, log_probs, settings, special)
        improvable = _can_improve(search, step + 1, settings)
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


class _Decoder:
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
            slots: see ``_Search``.

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


def _begin(
    examples: int, settings: DecodingSettings, special: SpecialTokens, device: torch.device
) -> _Search:
    beams = settings.beams
    scores = torch.full((examples, beams), _NEVER, device=device)
    # All hypotheses of an example are equal at first, so that only one of them may count.
    scores[:, 0] = 0
    longest = (examples, beams, 1 + settings.max_new_tokens)
    return _Search(
        example=torch.arange(examples, device=device),
        tokens=torch.full((examples, beams, 1), special.start, device=device),
        scores=scores,
        slots=torch.arange(beams, device=device).expand(examples, beams)[..., None],
        ended=torch.full(longest, special.pad, device=device),
        ended_scores=torch.full((examples, beams), _NEVER, device=device),
    )


def _log_probs(logits: Tensor, tokens: Tensor, settings: DecodingSettings) -> Tensor:
    """Normalise the logits, and penalise the tokens that a hypothesis already contains."""
    penalty = settings.repetition_penalty
    if penalty == 1:
        return F.log_softmax(logits, dim=-1)
    # As in transformers, whose greedy search penalises logits without normalising them.
    if settings.beams == 1:
        return F.log_softmax(_penalised(logits, tokens, penalty), dim=-1)
    return _penalised(F.log_softmax(logits, dim=-1), tokens, penalty)


def _penalised(scores: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    old = scores.gather(-1, tokens)
    return scores.scatter(-1, tokens, torch.where(old < 0, old * penalty, old / penalty))


def _forbid(
    log_probs: Tensor, tokens: Tensor, settings: DecodingSettings, special: SpecialTokens
) -> None:
    """Exclude in place repeated n-grams, ends before the minimum length, and unforced tokens."""
    length = tokens.shape[-1]
    size = settings.no_repeat_ngram
    starts = length + 1 - size
    if size and starts > 0:
        # Find where the last size - 1 tokens occur earlier; exclude the tokens that followed them.
        seen = torch.ones_like(tokens[..., :starts], dtype=torch.bool)
        for offset in range(size - 1):
            last = tokens[..., starts + offset, None]
            seen &= tokens[..., offset : starts + offset] == last
        penalty = torch.zeros_like(seen, dtype=log_probs.dtype).masked_fill_(seen, -torch.inf)
        log_probs.scatter_add_(-1, tokens[..., size - 1 :], penalty)
    if length <= settings.min_new_tokens:
        log_probs[..., list(special.end)] = -torch.inf
    for forced, at in ((special.forced_first, 1), (special.forced_last, settings.max_new_tokens)):
        if forced is not None and length == at:
            log_probs.fill_(-torch.inf)
            log_probs[..., forced] = 0


def _advance(
    search: _Search, log_probs: Tensor, settings: DecodingSettings, special: SpecialTokens
) -> _Search:
    """Extend every hypothesis by a token, keep the best, and move finished ones to ``ended``."""
    beams = settings.beams
    vocabulary = log_probs.shape[-1]
    length = search.tokens.shape[-1]
    totals = (log_probs + search.scores[..., None]).flatten(1)
    # A beam can end with any of the end tokens, so that this many candidates leave enough open.
    scores, picks = totals.topk(beams * (1 + len(special.end)))
    parents = picks // vocabulary
    tokens = torch.cat([_take(search.tokens, parents), (picks % vocabulary)[..., None]], -1)

    closed = torch.zeros_like(picks, dtype=torch.bool)
    for end in special.end:
        closed |= tokens[..., -1] == end
    if length == settings.max_new_tokens:
        closed.fill_(True)

    # Only the best `beams` candidates may end; the others replace those that do.
    ending = scores / length**settings.length_penalty
    ending = ending.masked_fill(~closed, _NEVER)[:, :beams]
    ended_scores, order = torch.cat([search.ended_scores, ending], 1).topk(beams)
    filled = F.pad(tokens[:, :beams], (0, search.ended.shape[-1] - length - 1), value=special.pad)
    ended = _take(torch.cat([search.ended, filled], 1), order)

    scores, order = (scores + closed * _NEVER).topk(beams)
    slots = _take(search.slots, parents.gather(1, order))
    own = torch.arange(beams, device=slots.device).expand(len(slots), beams)[..., None]
    return replace(
        search,
        tokens=_take(tokens, order),
        scores=scores,
        slots=torch.cat([slots, own], -1),
        ended=ended,
        ended_scores=ended_scores,
    )


def _can_improve(search: _Search, length: int, settings: DecodingSettings) -> Tensor:
    """Return for each example whether an open hypothesis can still beat a finished one.

    From here on scores only fall, and lengths grow up to the maximum. ``early_stopping=False``
    nevertheless compares at the present length, which is exact for length penalties up to 0.

    Args:
        search: the state of the search.
        length: number of tokens of the open hypotheses, without the start token.
        settings: the settings of the search.

    Returns:
        Booleans, shape (examples,).
    """
    worst = search.ended_scores[:, -1]
    if settings.beams == 1 or settings.early_stopping is True:
        return worst <= _NEVER  # Fewer hypotheses have ended than there are beams.
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        length = settings.max_new_tokens
    divisor: float = length**settings.length_penalty
    return search.scores[:, 0] / divisor > worst


def _take(rows: Tensor, indices: Tensor) -> Tensor:
    """Select rows along the second axis: (examples, rows, width) to (examples, selected, width)."""
    return rows.take_along_dim(indices[..., None], 1)


def _additive(visible: Tensor) -> Tensor:
    """Turn a boolean mask of visible keys into one that is added to attention scores."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)
