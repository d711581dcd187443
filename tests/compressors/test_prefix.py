"""Prefix tuning: PEFT's own model as the reference, and searches that write to the same cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model

from compressors.prefix import Prefix
from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.costs.capabilities import find_capabilities
from harness.evaluation.decoding import searching_ids
from harness.model.composition import compose
from harness.spec.setting_groups import ScoringSettings
from harness.training.engines.activation_checkpointing import checkpoint_activations

IDS = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 1, 0, 0]])
MASK = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
TEXTS = ["prefix:tokens=4", "prefix:tokens=4,hidden=6"]
INPUTS = {"input_ids": IDS, "attention_mask": MASK, "labels": IDS.flip(0)}


def prefixed(make: Callable[[], Any], backbone: Backbone, text: str) -> Any:
    plain = make()
    plain.generation_config.pad_token_id = plain.config.pad_token_id or 0
    torch.manual_seed(7)
    return compose(plain, backbone, parse(text, installed().compressors)).eval()


@pytest.fixture
def model(shallow: Backbone, make_shallow: Callable[[], Any]) -> Any:
    return prefixed(make_shallow, shallow, TEXTS[0])


def test_the_logits_are_those_of_peft(backbone: Backbone, make_model: Callable[[], Any]) -> None:
    # PEFT lets the 1st layer of 7 read the pairs 0 and 1 of 14, the 2nd 4 and 5, and so on around.
    model = prefixed(make_model, backbone, TEXTS[0])
    theirs: Any = get_peft_model(
        make_model(), Prefix("prefix", Prefix.Options(tokens=4)).config(make_model(), backbone)
    ).eval()
    ours = model.prefix.embedding.weight.detach().view(4, 14, -1)
    pairs = torch.empty_like(ours)
    for layer in range(7):
        pairs[:, 4 * layer % 14] = ours[:, 2 * layer]
        pairs[:, (4 * layer + 1) % 14] = ours[:, 2 * layer + 1]
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(pairs.flatten(1))
        expected, found = theirs(**INPUTS), model(**INPUTS)
        plain = make_model().eval()(**INPUTS)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found.logits, plain.logits, atol=1e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_a_pruned_model_has_a_prefix_for_each_layer_that_is_left(
    shallow: Backbone, make_shallow: Callable[[], Any], text: str
) -> None:
    pruned = prefixed(make_shallow, shallow, f"{text}+lprun:encoder=all,decoder=2")
    pruned(**INPUTS).loss.backward()
    made = pruned.prefix(torch.arange(4))
    assert made.shape == (4, 2 * 1 * 16)
    assert all(parameter.grad.count_nonzero() for parameter in pruned.prefix.parameters())
    same = {"num_beams": 2, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    cached, plain = (
        pruned.generate(input_ids=IDS, attention_mask=MASK, use_cache=use, **same)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)


def test_every_step_of_a_search_sees_the_prefix(model: Any) -> None:
    """Greedy search by whole forward passes, each without a cache, as the reference."""
    tokens = torch.full((2, 1), model.config.decoder_start_token_id)
    with torch.no_grad():
        for _ in range(5):
            inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": tokens}
            logits = model(**inputs, use_cache=False).logits[:, -1]
            logits[:, model.generation_config.eos_token_id] = -torch.inf
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    settings = ScoringSettings(beams=1, max_new_tokens=5, min_new_tokens=5, no_repeat_ngram=0)
    sources = [[5, 7, 11, 13, 17, 1], [8, 9, 31, 1]]
    with searching_ids(model, shared_beams=False, dtype=torch.float32) as search:
        found = search(sources, settings)
    assert torch.equal(found, tokens)


def test_activation_checkpointing_changes_no_gradient(
    shallow: Backbone, make_shallow: Callable[[], Any]
) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = prefixed(make_shallow, shallow, TEXTS[0])
        if checkpointed:
            checkpoint_activations(model, shallow, torch.enable_grad)
        model.train()
        torch.manual_seed(3)
        model(**INPUTS, use_cache=False).loss.backward()
        gradients.append(model.prefix.embedding.weight.grad)
    assert torch.equal(*gradients)


def test_bfloat16_computes_nearly_the_same(model: Any) -> None:
    expected = model(**INPUTS).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**INPUTS).logits
        model.generate(input_ids=IDS, attention_mask=MASK, num_beams=2, max_new_tokens=3)
    torch.testing.assert_close(
        found.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max())
    )


@pytest.mark.parametrize("backbone", ["bart"], indirect=True)
def test_a_target_that_leaves_no_room_is_refused(model: Any) -> None:
    with pytest.raises(HarnessError, match=r"4 tokens and a target of 37 .* 40 positions"):
        model(input_ids=IDS, labels=torch.full((2, 37), 5))


def test_beams_do_not_share_a_cache(shallow: Backbone) -> None:
    recipe = parse(TEXTS[0], installed().compressors)
    assert not recipe.shares_beams
    assert not find_capabilities(shallow, recipe).shares_beams
