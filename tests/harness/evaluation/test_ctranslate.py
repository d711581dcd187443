"""CTranslate2 against the harness's own search; greedy predictions must be equal."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from compressors.lora import LoraFF, LoraOptions
from harness import Backbone, HarnessError
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5
from harness.evaluation.ctranslate import require_ctranslate2, translate, translate_signature
from harness.evaluation.decoding import generate
from harness.model.contexts import default_context
from harness.spec.decoding import DecodingSettings

pytest.importorskip("ctranslate2")

VOCABULARY = 60
# A random T5 repeats its start token; only transformers counts it as part of n-grams.
GREEDY = DecodingSettings(beams=1, max_new_tokens=16, no_repeat_ngram=0, batch_size=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1", bos_token="w2", unk_token="w3"
    )


def t5(**more: Any) -> PreTrainedModel:
    torch.manual_seed(10)
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 3}
    config = T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **shape, **more)
    return sharpened(T5ForConditionalGeneration(config), 2)


def bart() -> PreTrainedModel:
    torch.manual_seed(2)
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_layers=3,
        decoder_layers=3,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    return sharpened(BartForConditionalGeneration(config), 12)


def sharpened(model: PreTrainedModel, factor: float) -> PreTrainedModel:
    """Scale the weights up, so that hypotheses have clearly different scores."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model.eval()


def pruned_with_lora(model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
    backbone.keep_layers(model, "encoder", [1, 3])
    backbone.keep_layers(model, "decoder", [2, 3])
    torch.manual_seed(0)
    compressor = LoraFF("lora_ff", LoraOptions(r=4))
    model = compressor.apply(model, backbone, default_context(model, backbone))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model.eval()


BUILDERS = {
    "t5": t5,
    "t5_gated": lambda: t5(feed_forward_proj="gated-gelu"),
    "bart": bart,
    "t5_pruned_lora": lambda: pruned_with_lora(t5(), T5("tiny")),
    "bart_pruned_lora": lambda: pruned_with_lora(bart(), Bart("tiny")),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_greedy_predictions_are_those_of_our_search(
    build: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    lengths = [7, 20, 1, 13, 4]
    sources = [
        [*torch.randint(5, VOCABULARY, (n,), generator=generator).tolist(), 1] for n in lengths
    ]
    batches: list[dict[int, str]] = []
    predictions = translate(
        model, tokenizer, sources, GREEDY, dtype=torch.float32, on_batch=batches.append
    )
    assert predictions == generate(model, tokenizer, sources, GREEDY, shared_beams=True)
    assert len(set(predictions)) > 2
    assert [len(batch) for batch in batches] == [2, 2, 1]
    new_batches: list[dict[int, str]] = []
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "earlier": batches[1],
        "on_batch": new_batches.append,
    }
    assert translate(model, tokenizer, sources, GREEDY, **options) == predictions
    assert new_batches == [batches[0], batches[2]]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    "changed",
    [
        {"min_new_tokens": 8},
        {"beams": 4, "early_stopping": True},
        {"beams": 4, "early_stopping": True, "length_penalty": 2.0},
    ],
    ids=["min_new_tokens", "early_stopping", "length_penalty"],
)
def test_settings_that_both_have_mean_the_same(
    changed: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = t5(feed_forward_proj="gated-gelu")
    generator = torch.Generator().manual_seed(0)
    sources = [
        [*torch.randint(5, VOCABULARY, (n,), generator=generator).tolist(), 1] for n in range(1, 21)
    ]
    search = GREEDY.model_copy(update={**changed, "batch_size": 20})
    predictions = translate(model, tokenizer, sources, search, dtype=torch.float32)
    expected = generate(model, tokenizer, sources, search, shared_beams=True)
    plain = translate(model, tokenizer, sources, GREEDY, dtype=torch.float32)
    # CTranslate2 rounds scores differently, so close hypotheses may change places.
    assert sum(a == b for a, b in zip(predictions, expected, strict=True)) >= 18
    assert predictions != plain


def test_the_repetition_penalty_makes_tokens_rarer(tokenizer: PreTrainedTokenizerFast) -> None:
    sources = [[*range(5, 25), 1]]
    texts = [
        translate(
            bart(),
            tokenizer,
            sources,
            GREEDY.model_copy(update={"repetition_penalty": penalty}),
            dtype=torch.float32,
        )[0].split()
        for penalty in (1.0, 2.0)
    ]
    assert [len(text) for text in texts] == [16, 16]
    assert len(set(texts[0])) < len(set(texts[1]))


def test_the_signature_names_the_decoder() -> None:
    name = translate_signature(t5(), GREEDY, torch.float32)
    assert name.startswith("ctranslate2|beams:1|max_new_tokens:16|no_repeat_ngram:0|float32|")


def test_without_the_package_the_hint_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(HarnessError) as caught:
        require_ctranslate2()
    assert "pip install 'seq2seq-harness[ctranslate2]'" in str(caught.value.hint)
