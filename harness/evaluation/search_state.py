"""The state of a beam search: its hypotheses, and how a step extends them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel

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
class Search:
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

    def select(self, rows: Tensor) -> Search:
        """Return the state of the examples ``rows`` only."""
        return Search(*(getattr(self, field.name)[rows] for field in fields(self)))


def begin(
    examples: int, settings: DecodingSettings, special: SpecialTokens, device: torch.device
) -> Search:
    """Return the state before the first step: one hypothesis of each example counts."""
    beams = settings.beams
    scores = torch.full((examples, beams), _NEVER, device=device)
    # All hypotheses of an example are equal at first, so that only one of them may count.
    scores[:, 0] = 0
    longest = (examples, beams, 1 + settings.max_new_tokens)
    return Search(
        example=torch.arange(examples, device=device),
        tokens=torch.full((examples, beams, 1), special.start, device=device),
        scores=scores,
        slots=torch.arange(beams, device=device).expand(examples, beams)[..., None],
        ended=torch.full(longest, special.pad, device=device),
        ended_scores=torch.full((examples, beams), _NEVER, device=device),
    )


def extended(
    search: Search, logits: Tensor, settings: DecodingSettings, special: SpecialTokens
) -> Search:
    """Return the state after one more step.

    Args:
        search: the state so far.
        logits: of each hypothesis, shape (examples, beams, vocabulary).
        settings: the settings of the search.
        special: the special tokens of the model.
    """
    log_probs = _log_probs(logits, search.tokens, settings)
    _forbid(log_probs, search.tokens, settings, special)
    return _advance(search, log_probs, settings, special)


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
        for end in special.end:  # An index of several tokens would be copied to the device.
            log_probs[..., end] = -torch.inf
    for forced, at in ((special.forced_first, 1), (special.forced_last, settings.max_new_tokens)):
        if forced is not None and length == at:
            log_probs.fill_(-torch.inf)
            log_probs[..., forced] = 0


def _advance(
    search: Search, log_probs: Tensor, settings: DecodingSettings, special: SpecialTokens
) -> Search:
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


def can_improve(search: Search, length: int, settings: DecodingSettings) -> Tensor:
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
