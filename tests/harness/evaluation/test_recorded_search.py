"""A search whose steps are recorded, against one whose steps are taken one by one.

A recording on the CPU runs the recorded function again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import Backbone
from harness.evaluation.beam_cache import ATTENTION
from harness.evaluation.beam_search import beam_search
from harness.evaluation.decoding import generate, pad_sources
from harness.evaluation.recorded_search import RecordedSearches
from harness.model.attention_switch import attention_implementation
from harness.spec.decoding import DecodingSettings

SETTINGS = [
    DecodingSettings(beams=1, max_new_tokens=9),
    DecodingSettings(beams=3, max_new_tokens=20),
    DecodingSettings(beams=4, max_new_tokens=17, no_repeat_ngram=2, min_new_tokens=3),
    DecodingSettings(beams=2, max_new_tokens=12, repetition_penalty=1.3, length_penalty=2.0),
]
BATCHES = [
    [[5, 9, 11, 1], [7, 1]],
    [[8, 12, 30, 31, 32, 1], [3, 4, 1]],
    [[5, 9, 11, 1], [7, 1], [9, 9, 1]],
    [[40, 41, 1], [42, 43, 44, 1]],
    [[7, 7, 7, 1], [10, 1], [11, 1]],
]


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


@pytest.fixture
def model(backbone: Backbone) -> Any:
    torch.manual_seed(0)
    model = backbone.load("random").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and "bart" not in backbone.name:
                parameter.mul_(3)  # Peaked outputs: beams are reordered and some end early.
    with attention_implementation(model, ATTENTION), torch.inference_mode():
        yield model


def trimmed(rows: Tensor, pad: int) -> list[list[int]]:
    return [[token for token in row if token != pad] for row in rows.tolist()]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.beams} beams")
@pytest.mark.fast_on("t5")
def test_predictions_are_equal(model: Any, settings: DecodingSettings) -> None:
    searches = RecordedSearches(model, Rerun)
    pad = model.generation_config.pad_token_id
    for batch in BATCHES:
        ids, lengths = pad_sources(batch, pad)
        expected = beam_search(model, ids, lengths, settings)
        assert trimmed(searches(ids, lengths, settings), pad) == trimmed(expected, pad)
    assert searches.obstacle is None
    assert searches.replays >= 3


@pytest.mark.fast_on("gated-t5", "bart")
def test_a_search_stops_when_all_examples_have_ended(model: Any) -> None:
    settings = DecodingSettings(beams=2, max_new_tokens=64)
    end = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [end, *range(2, 30)]  # Most tokens end a hypothesis.
    searches = RecordedSearches(model, Rerun)
    pad = model.generation_config.pad_token_id
    ids, lengths = pad_sources(BATCHES[0], pad)
    for _ in range(2):
        found = searches(ids, lengths, settings)
    assert trimmed(found, pad) == trimmed(beam_search(model, ids, lengths, settings), pad)
    assert 0 < searches.replays < 64


@pytest.mark.fast_on("gated-t5", "bart")
def test_a_search_that_cannot_be_recorded_is_taken_and_the_reason_is_kept(model: Any) -> None:
    def fails(function: Callable[[], None]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    settings = SETTINGS[1]
    searches = RecordedSearches(model, fails)
    pad = model.generation_config.pad_token_id
    ids, lengths = pad_sources(BATCHES[0], pad)
    expected = trimmed(beam_search(model, ids, lengths, settings), pad)
    for _ in range(3):
        assert trimmed(searches(ids, lengths, settings), pad) == expected
    assert searches.obstacle == "RuntimeError: operation not permitted when stream is capturing"
    assert searches.replays == 0


@pytest.mark.fast_on("bart")
def test_sizes_that_are_not_used_any_more_are_dropped(model: Any) -> None:
    searches = RecordedSearches(model, Rerun)
    pad = model.generation_config.pad_token_id
    for count in range(1, 12):
        ids, lengths = pad_sources([[5, 1]] * count, pad)
        for _ in range(2):
            searches(ids, lengths, SETTINGS[0])
    assert len(searches._searches) == 8


class Ids:
    """Replaces a tokenizer."""

    def batch_decode(self, rows: Tensor, skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, row)) for row in rows.tolist()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.beams} beams")
def test_recorded_predictions_on_cuda_are_those_of_the_cpu(
    backbone: Backbone, settings: DecodingSettings
) -> None:
    torch.manual_seed(0)
    model = backbone.load("random")
    sources = [row for batch in BATCHES for row in batch] * 3
    two = settings.model_copy(update={"batch_size": 2})
    expected = generate(model, Ids(), sources, two, shared_beams=True)
    found = generate(model.to("cuda"), Ids(), sources, two, shared_beams=True)
    assert found == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_steps_are_recorded_on_cuda(backbone: Backbone) -> None:
    from harness.model.recorder import CudaRecorder

    model = backbone.load("random").to("cuda").eval()
    with attention_implementation(model, ATTENTION), torch.inference_mode():
        searches = RecordedSearches(model, CudaRecorder())
        ids, lengths = (t.to("cuda") for t in pad_sources(BATCHES[0], 0))
        for _ in range(4):
            searches(ids, lengths, SETTINGS[1])
    assert searches.obstacle is None
    assert searches.replays > 0
