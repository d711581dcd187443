"""Beam search whose steps are CUDA graphs: one launch in place of hundreds.

A step of the decoder is many small kernels, and the CPU takes longer to launch them than the GPU to
run them. The sizes of all tensors in step t depend on t, on the number of examples and on the
length of the sources. So each step is recorded once, and replayed for all batches of equal sizes.
Examples stay in the batch until all have ended; what a finished example goes on to do is ignored.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel

from harness.errors import first_line
from harness.evaluation.beam_search import Decoder, beam_search
from harness.evaluation.search_state import Search, SpecialTokens, begin, can_improve, extended
from harness.model.recorder import Record, Recording
from harness.spec.decoding import DecodingSettings

_WIDTH = 256
"""Sources are padded to a multiple of this many tokens, so that sizes repeat."""
_MOST = 8
"""Searches that are kept; each holds its cache and its hypotheses."""
_CHECKED = 8
"""Steps between two looks at whether all examples have ended, which wait for the device."""


def rounded_width(longest: int) -> int:
    """Return the length that sources are padded to, in tokens.

    Args:
        longest: tokens of the longest source of a batch.
    """
    return -(-longest // _WIDTH) * _WIDTH


class RecordedSearches:
    """Searches with the results of ``beam_search``, recorded for each size that occurs twice.

    Args:
        model: see ``beam_search``; its weights must stay where they are.
        record: records a function.

    Attributes:
        obstacle: the reason why no search is recorded any more; None if there is none.
        replays: number of steps that were replayed.
    """

    def __init__(self, model: PreTrainedModel, record: Record) -> None:
        self.obstacle: str | None = None
        self.replays = 0
        self._model = model
        self._record = record
        self._seen: set[object] = set()
        self._searches: OrderedDict[object, _RecordedSearch] = OrderedDict()

    def __call__(self, input_ids: Tensor, lengths: Tensor, settings: DecodingSettings) -> Tensor:
        """Return the best hypothesis of every example; see ``beam_search``."""
        width = rounded_width(input_ids.shape[1])
        learned = getattr(self._model.config, "max_position_embeddings", width)
        missing = max(0, min(width, learned) - input_ids.shape[1])
        padded = F.pad(input_ids, (0, missing), value=SpecialTokens.of(self._model).pad)
        key = tuple(padded.shape), settings.model_dump_json()
        if self.obstacle is None and key in self._seen:
            try:
                return self._recorded(key, padded, lengths, settings)
            except Exception as error:  # Kernels, drivers and libraries raise errors of any type.
                self.obstacle = f"{type(error).__name__}: {first_line(error)}"
                self._searches.clear()
        self._seen.add(key)
        return beam_search(self._model, input_ids, lengths, settings)

    def _recorded(
        self, key: object, input_ids: Tensor, lengths: Tensor, settings: DecodingSettings
    ) -> Tensor:
        search = self._searches.pop(key, None)
        if search is None:
            if len(self._searches) == _MOST:
                self._searches.popitem(last=False)
            search = _RecordedSearch(self._model, settings, input_ids, lengths, self._record)
        self._searches[key] = search
        results, steps = search(input_ids, lengths)
        self.replays += steps
        return results


class _RecordedSearch:
    """The recorded steps of searches with the same sizes, and the tensors that they use."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: DecodingSettings,
        input_ids: Tensor,
        lengths: Tensor,
        record: Record,
    ) -> None:
        self._model = model
        self._settings = settings
        self._special = SpecialTokens.of(model)
        self._input_ids, self._lengths = input_ids.clone(), lengths.clone()
        self._record = record
        self._recordings: list[Recording] = []
        self._decoder: Decoder
        self._search: Search
        self._results: Tensor
        self._ended: Tensor

    def __call__(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Return the best hypothesis of every example, and the number of steps."""
        self._input_ids.copy_(input_ids)
        self._lengths.copy_(lengths)
        self._take(0)
        for step in range(self._settings.max_new_tokens):
            self._take(step + 1)
            if (step + 1) % _CHECKED == 0 and bool(self._ended.all()):
                break
        return self._results.clone(), step + 1

    def _take(self, number: int) -> None:
        """Begin the search, or take a step of it; it is recorded the first time."""
        if number == len(self._recordings):
            self._recordings.append(self._record(self._step if number else self._begin))
        self._recordings[number].replay()

    def _begin(self) -> None:
        settings, examples = self._settings, len(self._input_ids)
        self._decoder = Decoder(self._model, self._input_ids, self._lengths, settings.beams)
        self._search = begin(examples, settings, self._special, self._input_ids.device)
        self._results = torch.full_like(self._search.ended[:, 0], self._special.pad)
        self._ended = torch.zeros_like(self._search.example, dtype=torch.bool)

    def _step(self) -> None:
        search, settings = self._search, self._settings
        length = search.tokens.shape[-1]
        logits = self._decoder.step(search.tokens[..., -1], search.slots)
        self._search = extended(search, logits, settings, self._special)
        # In place, so that the results are there whichever step is the last one.
        best = torch.where(self._ended[:, None], self._results, self._search.ended[:, 0])
        self._results.copy_(best)
        self._ended |= ~can_improve(self._search, length, settings)
