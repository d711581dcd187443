"""Virtual tokens: PEFT's own model and transformers' search as references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.evaluation.decoding import searching_ids
from harness.model.composition import compose
from harness.spec.setting_groups import ScoringSettings
from harness.training.packing import resolve_packing

IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 1, 0, 0]])
MASK = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
TEXTS = ["prompt:tokens=4", "ptuning:tokens=4,hidden=16"]


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(shallow: Backbone, make_shallow: Callable[[], Any], text: str) -> Any:
    plain = make_shallow()
    plain.generation_config.pad_token_id = plain.config.pad_token_id or 0
    return compose(plain, shallow, parse(text, installed().compressors)).eval()


def test_the_logits_are_those_of_peft(
    make_shallow: Callable[[], Any], model: Any, text: str
) -> None:
    name = text.partition(":")[0]
    theirs: Any = get_peft_model(make_shallow(), model.peft_config[name]).eval()
    theirs.prompt_encoder["default"].load_state_dict(getattr(model, name).state_dict())
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": IDS.flip(0)}
    with torch.no_grad():
        expected, found = theirs(**inputs), model(**inputs)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    same = {"num_beams": 2, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    generated = [m.generate(input_ids=IDS, attention_mask=MASK, **same) for m in (theirs, model)]
    assert torch.equal(*generated)


def test_beams_that_share_a_cache_find_what_transformers_finds(model: Any) -> None:
    settings = ScoringSettings(beams=3, max_new_tokens=6, min_new_tokens=3)
    sources = [[5, 7, 11, 13, 17, 1], [8, 9, 31, 1]]
    found = []
    for shared in (True, False):
        with searching_ids(model, shared_beams=shared, dtype=torch.float32) as search:
            found.append(search(sources, settings))
    length = min(ids.shape[1] for ids in found)
    assert torch.equal(found[0][:, :length], found[1][:, :length])


def test_a_source_that_leaves_no_room_is_refused(shallow: Backbone, model: Any, text: str) -> None:
    if shallow.longest_sequence() is None:
        assert model(input_ids=IDS.repeat(1, 20), labels=IDS).loss.isfinite()
        return
    with pytest.raises(HarnessError, match="positions"):
        model(input_ids=torch.full((1, 38), 5), labels=IDS[:1])


def test_packing_is_refused_if_it_is_demanded(text: str) -> None:
    recipe = parse(text, installed().compressors)
    assert resolve_packing("auto", recipe) == "off"
    with pytest.raises(HarnessError, match="cannot be packed"):
        resolve_packing("packed", recipe)
    assert resolve_packing("packed", parse("lora_ff", installed().compressors)) == "on"


@pytest.mark.parametrize("backbone", ["bart"], indirect=True)
def test_the_first_vectors_are_words(
    shallow: Backbone, make_shallow: Callable[[], Any], backbone: Backbone
) -> None:
    plain = make_shallow()
    words = plain.get_encoder().get_input_embeddings()(torch.arange(48))
    model: Any = compose(plain, shallow, parse("prompt:tokens=4", installed().compressors))
    for vector in model.prompt.embedding.weight:
        assert (words == vector).all(1).any()
