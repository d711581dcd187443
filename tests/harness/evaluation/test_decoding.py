"""Predictions, compared with transformers' own generate on small models with peaked outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from compressors.lora import Lora, LoraFF, LoraOptions, LoraQV
from harness import Backbone
from harness.backbones.bart import Bart
from harness.backbones.t5 import T5
from harness.evaluation.decoding import generate, signature
from harness.model.contexts import default_context
from harness.spec.decoding import DecodingSettings

VOCABULARY = 60
T5_SHAPE = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_heads": 4,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "decoder_start_token_id": 0,
    "vocab_size": VOCABULARY,
}
BART_SHAPE = {
    "d_model": 32,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
}


def _build(family: str, sharpness: float, seed: int = 0, **config: object) -> PreTrainedModel:
    """Draw a model with large weights, so that beams are reordered and some end early."""
    shape = T5_SHAPE if "T5" in family else BART_SHAPE
    torch.manual_seed(seed)
    model_config = getattr(transformers, f"{family}Config")(**{**shape, **config})
    model = getattr(transformers, f"{family}ForConditionalGeneration")(model_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(sharpness)
    return model


def _t5(seed: int = 10) -> PreTrainedModel:
    return _build("T5", 3, seed)


def _t5_gated(seed: int = 7) -> PreTrainedModel:
    return _build("T5", 3, seed, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def _bart(seed: int = 2) -> PreTrainedModel:
    return _build("Bart", 12, seed)


def _bart_forced_start(seed: int = 2) -> PreTrainedModel:
    model = _bart(seed)
    model.generation_config.forced_bos_token_id = 0
    return model


def _t5_pruned(seed: int = 10) -> PreTrainedModel:
    model = _t5(seed)
    T5("tiny").keep_layers(model, "encoder", [1, 3])
    T5("tiny").keep_layers(model, "decoder", [1, 3])
    return model


def _bart_pruned(seed: int = 2) -> PreTrainedModel:
    model = _bart(seed)
    Bart("tiny").keep_layers(model, "decoder", [1, 3])
    return model


def _t5_lora(seed: int = 10) -> PreTrainedModel:
    return _adapted(LoraFF("lora_ff", LoraOptions(r=4)), _t5(seed), T5("tiny"))


def _bart_lora(seed: int = 2) -> PreTrainedModel:
    return _adapted(LoraQV("lora_qv", LoraOptions(r=4)), _bart(seed), Bart("tiny"))


def _adapted(lora: Lora, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
    model = lora.apply(model, backbone, default_context(model, backbone))
    # A fresh adapter changes nothing: B is zero.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model.eval()


BUILDERS = [
    _t5,
    _t5_gated,
    _t5_pruned,
    _t5_lora,
    _bart,
    _bart_forced_start,
    _bart_pruned,
    _bart_lora,
    lambda seed=0: _build("MT5", 3, seed),
    lambda seed=0: _build("MBart", 12, seed, decoder_start_token_id=2),
    lambda seed=0: _build("Pegasus", 12, seed),
    # Has an attention of its own, so that transformers' search has to do.
    lambda seed=0: _build("LongT5", 3, seed, local_radius=4),
]
BUILDER_IDS = [
    *("t5", "t5_gated", "t5_pruned", "t5_lora", "bart", "bart_forced_start", "bart_pruned"),
    *("bart_lora", "mt5", "mbart", "pegasus", "long_t5"),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w59"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w0", eos_token="w1", bos_token="w2"
    )


def predict(model: PreTrainedModel, *arguments: Any, **options: Any) -> list[str]:
    """Decode with shared beams where the model's attention supports it."""
    shared = model.config.model_type != "longt5"
    return generate(model, *arguments, shared_beams=shared, **options)


def _sources(model: PreTrainedModel, lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    end = model.generation_config.eos_token_id
    return [
        [*torch.randint(5, VOCABULARY, (n - 1,), generator=generator).tolist(), end]
        for n in lengths
    ]


def _expected(
    model: PreTrainedModel,
    tokenizer: Any,
    sources: list[list[int]],
    search: DecodingSettings,
    use_cache: bool = True,
) -> list[str]:
    """Decode all sources in one batch with transformers."""
    pad = model.generation_config.pad_token_id
    input_ids = torch.full((len(sources), max(map(len, sources))), pad)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sources):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    rows = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        num_beams=search.beams,
        max_new_tokens=search.max_new_tokens,
        no_repeat_ngram_size=search.no_repeat_ngram,
        early_stopping=search.early_stopping,
        length_penalty=search.length_penalty,
        min_new_tokens=search.min_new_tokens,
        repetition_penalty=search.repetition_penalty,
        do_sample=False,
        use_cache=use_cache,
    )
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


class TokenIds:
    """Replaces a tokenizer: writes every id up to the end of the prediction."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.end = model.generation_config.eos_token_id

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        texts = []
        for ids in rows.tolist():
            closed = self.end in ids[1:]
            length = 1 + ids[1:].index(self.end) + 1 if closed else len(ids)
            texts.append(" ".join(map(str, ids[:length])))
        return texts


LENGTHS = [7, 20, 1, 13, 4, 20, 2]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("build", BUILDERS, ids=BUILDER_IDS)
def test_predictions_are_those_of_transformers(
    build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast, use_cache: bool
) -> None:
    model = build()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=20, batch_size=4)
    expected = _expected(model, tokenizer, sources, search, use_cache)
    assert predict(model, tokenizer, sources, search) == expected


def test_a_backbone_without_shared_beams_gets_the_librarys_search(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = _t5()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=20, batch_size=4)
    assert (Backbone.shared_beams, T5.shared_beams, Bart.shared_beams) == (False, True, True)
    assert generate(model, tokenizer, sources, search) == predict(model, tokenizer, sources, search)


@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=5),
    search=st.builds(
        DecodingSettings,
        beams=st.integers(1, 6),
        max_new_tokens=st.integers(1, 24),
        no_repeat_ngram=st.integers(0, 4),
        batch_size=st.integers(1, 4),
    ),
    build=st.sampled_from([_t5, _bart, _bart_forced_start]),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_predictions_are_those_of_transformers_whatever_the_settings(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    lengths: list[int],
    search: DecodingSettings,
    build: Callable[[int], PreTrainedModel],
) -> None:
    model = build(seed)
    sources = _sources(model, lengths, seed)
    expected = _expected(model, tokenizer, sources, search)
    assert predict(model, tokenizer, sources, search) == expected


def _long_t5(seed: int = 0) -> PreTrainedModel:
    return _build("LongT5", 3, seed, local_radius=4)


# Values that papers use, values that switch a setting off, and unusual ones.
LENGTH_PENALTIES = st.sampled_from([1.0, 0.6, 2.0, 0.0, -1.0]) | st.floats(-2, 10)
REPETITION_PENALTIES = st.sampled_from([1.0, 1.2, 0.8]) | st.floats(0.3, 4)
EARLY_STOPPING = st.sampled_from([False, True, "never"])


@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    search=st.integers(1, 24).flatmap(
        lambda longest: st.builds(
            DecodingSettings,
            beams=st.integers(1, 6),
            max_new_tokens=st.just(longest),
            no_repeat_ngram=st.integers(0, 4),
            length_penalty=LENGTH_PENALTIES,
            min_new_tokens=st.just(0) | st.integers(0, longest),
            repetition_penalty=REPETITION_PENALTIES,
            early_stopping=EARLY_STOPPING,
            batch_size=st.integers(1, 4),
        )
    ),
    build=st.sampled_from([_t5, _t5_gated, _bart, _bart_forced_start, _long_t5]),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_token_ids_are_those_of_transformers_with_the_settings_of_papers(
    seed: int,
    lengths: list[int],
    search: DecodingSettings,
    build: Callable[[int], PreTrainedModel],
) -> None:
    model = build(seed)
    sources = _sources(model, lengths, seed)
    ids = TokenIds(model)
    expected = _expected(model, ids, sources, search)
    assert predict(model, ids, sources, search) == expected


@pytest.mark.parametrize("build", [lambda: _t5_gated(4), lambda: _bart(0)], ids=["t5", "bart"])
def test_each_setting_changes_what_is_predicted(build: Callable[[], PreTrainedModel]) -> None:
    """Without this the comparison above would prove nothing."""
    model = build()
    sources = _sources(model, list(range(1, 25)))
    ids = TokenIds(model)

    def predicted(**changed: Any) -> list[str]:
        search = DecodingSettings(
            beams=4, max_new_tokens=20, no_repeat_ngram=2, batch_size=24, **changed
        )
        texts = predict(model, ids, sources, search)
        assert texts == _expected(model, ids, sources, search)
        return texts

    plain = predicted()
    assert predicted(length_penalty=5.0) != plain
    assert predicted(length_penalty=-2.0) != plain
    assert predicted(repetition_penalty=2.0) != plain
    assert predicted(early_stopping=True) != predicted(early_stopping="never")
    longer = predicted(min_new_tokens=15)
    assert min(len(text.split()) for text in plain) < 15
    # Besides the start token, and the end token where there is one.
    assert min(len(text.split()) for text in longer) >= 16


@pytest.mark.parametrize("shared_beams", [True, False], ids=["own", "librarys"])
def test_greedy_search_ignores_what_belongs_to_beams(shared_beams: bool, caplog: Any) -> None:
    model = _bart()
    sources = _sources(model, LENGTHS)
    plain = {"beams": 1, "max_new_tokens": 20}
    ids = TokenIds(model)
    before, after = (
        generate(model, ids, sources, DecodingSettings(**plain, **more), shared_beams=shared_beams)
        for more in ({}, {"length_penalty": 2.0, "early_stopping": "never"})
    )
    assert before == after
    assert not caplog.records


@pytest.mark.parametrize("build", [_t5, _t5_gated, _bart])
def test_the_compared_models_reorder_beams_and_end_at_different_lengths(
    build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Without this the comparisons above would prove nothing."""
    model = build()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=20)
    moved = 0
    for ids in sources[:3]:
        generated = model.generate(
            input_ids=torch.tensor([ids]),
            num_beams=6,
            max_new_tokens=20,
            no_repeat_ngram_size=3,
            return_dict_in_generate=True,
            output_scores=True,
        )
        moved += int((generated.beam_indices[0, 1:] > 0).sum())
    expected = _expected(model, tokenizer, sources, search)
    assert moved > 0
    assert len({len(text.split()) for text in expected}) >= 4


def test_the_order_of_the_sources_is_that_of_the_predictions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = _t5_gated()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=20, batch_size=2)
    forwards = predict(model, tokenizer, sources, search)
    assert len(set(forwards)) > 3
    assert predict(model, tokenizer, sources[::-1], search) == forwards[::-1]


def test_repeating_a_run_repeats_its_predictions(tokenizer: PreTrainedTokenizerFast) -> None:
    model = _bart()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=20)
    first = predict(model, tokenizer, sources, search)
    assert predict(model, tokenizer, sources, search) == first


def test_no_sources_give_no_predictions(tokenizer: PreTrainedTokenizerFast) -> None:
    assert predict(_t5(), tokenizer, [], DecodingSettings()) == []


def test_each_batch_is_announced_with_its_predictions(tokenizer: PreTrainedTokenizerFast) -> None:
    model = _t5()
    batches: list[dict[int, str]] = []
    search = DecodingSettings(max_new_tokens=3, batch_size=3)
    predictions = predict(
        model, tokenizer, _sources(model, LENGTHS), search, on_batch=batches.append
    )
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [
        text for _, text in sorted((batches[0] | batches[1] | batches[2]).items())
    ] == predictions


@pytest.mark.parametrize("build", [_t5, _bart])
def test_known_predictions_are_not_computed_again(
    build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=9, batch_size=2)
    batches: list[dict[int, str]] = []
    predictions = predict(model, tokenizer, sources, search, on_batch=batches.append)
    stored = {**batches[0], **batches[2], 99: "of no source"}
    new_batches: list[dict[int, str]] = []
    again = predict(model, tokenizer, sources, search, earlier=stored, on_batch=new_batches.append)
    assert again == predictions
    assert new_batches == [batches[1], batches[3]]
    marked = dict.fromkeys(batches[0], "kept as it is")
    texts = predict(model, tokenizer, sources, search, earlier=marked)
    assert texts == [marked.get(i, text) for i, text in enumerate(predictions)]


@pytest.mark.parametrize("build", [_bart, BUILDERS[-1]], ids=["bart", "long_t5"])
def test_generation_settings_of_the_model_change_nothing(
    build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=12)
    before = predict(model, tokenizer, sources, search)
    own = model.generation_config
    stray = GenerationConfig(
        **{name: value for name, value in own.to_dict().items() if name.endswith("token_id")},
        num_beams=2,
        length_penalty=3.0,
        min_length=9,
        repetition_penalty=2.0,
        early_stopping=True,
    )
    model.generation_config = stray
    assert predict(model, tokenizer, sources, search) == before
    assert model.generation_config is stray


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_the_same_afterwards(
    training: bool, dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = _t5_lora().train(training)
    attention = model.config._attn_implementation
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    predictions = generate(
        model, tokenizer, _sources(model, LENGTHS), DecodingSettings(max_new_tokens=4), dtype=dtype
    )
    assert all(predictions)
    assert model.training is training
    assert {m.training for m in model.modules()} == {training}
    assert model.config._attn_implementation == attention
    assert model.decoder.config._attn_implementation == attention
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, values) in before.items():
        assert after[name] is parameter
        assert torch.equal(parameter, values)


def test_bfloat16_predicts_as_float32_where_the_model_is_decided(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = _bart()
    sources = _sources(model, LENGTHS)
    search = DecodingSettings(max_new_tokens=6, beams=1)
    exact = predict(model, tokenizer, sources, search)
    assert predict(model, tokenizer, sources, search, dtype=torch.bfloat16) == exact


def test_signatures_differ_where_predictions_can() -> None:
    base = signature(DecodingSettings())
    assert base == (
        "beam_search|beams:6|max_new_tokens:128|no_repeat_ngram:3|float32"
        f"|transformers:{transformers.__version__}"
    )
    others = [
        signature(DecodingSettings(beams=1)),
        signature(DecodingSettings(max_new_tokens=64)),
        signature(DecodingSettings(no_repeat_ngram=0)),
        signature(DecodingSettings(length_penalty=2.0)),
        signature(DecodingSettings(min_new_tokens=10)),
        signature(DecodingSettings(repetition_penalty=1.2)),
        signature(DecodingSettings(early_stopping=True)),
        signature(DecodingSettings(early_stopping="never")),
        signature(DecodingSettings(), torch.bfloat16),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert signature(DecodingSettings(batch_size=1)) == base


def test_a_signature_names_later_settings_only_where_they_are_not_at_their_default() -> None:
    """Reports that predate these settings stay comparable."""
    search = DecodingSettings(length_penalty=2, min_new_tokens=5, early_stopping=True)
    assert signature(search).startswith(
        "beam_search|beams:6|max_new_tokens:128|no_repeat_ngram:3"
        "|length_penalty:2.0|min_new_tokens:5|early_stopping:true|float32|"
    )
