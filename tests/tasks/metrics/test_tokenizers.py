"""Tokenizers on any script: dropped letters, undivided words, and no downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from harness import Metric
from harness.api.metric import make_metric
from harness.api.plugins import installed
from harness.evaluation.predictions import PredictionRow
from harness.evaluation.scoring import score
from tasks.metrics.tokenizers import (
    any_script_tokens,
    dropped_share,
    missing_for,
    reference_tokens,
    sacrebleu_tokens,
    undivided_share,
)

TEXTS = {
    "thai": "ผู้ป่วยมีอาการเจ็บหน้าอกมาสามวันและหายใจลำบากมากขึ้นเมื่อนอนราบ",
    "hindi": "रोगी को तीन दिन से सीने में दर्द और सांस लेने में कठिनाई हो रही है।",
    "chinese": "患者主诉胸痛三天，伴有呼吸困难，既往有高血压病史，否认药物过敏。",
    "arabic": "يشكو المريض من ألم في الصدر منذ ثلاثة أيام مع صعوبة في التنفس",
    "greek": "Ο ασθενής παραπονείται για πόνο στο στήθος εδώ και τρεις ημέρες",
}


def metric(text: str) -> Metric:
    return make_metric(text, installed().metrics)


def rows(*texts: str) -> list[PredictionRow]:
    return [PredictionRow(number, text, text, None) for number, text in enumerate(texts, 1)]


@given(st.text(st.characters(max_codepoint=127)))
def test_on_ascii_text_any_script_is_the_reference(text: str) -> None:
    assert any_script_tokens(text.replace("_", " ")) == reference_tokens(text.replace("_", " "))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_letter_of_any_script_is_dropped_and_words_are_divided(text: str) -> None:
    assert dropped_share([text], any_script_tokens) == 0
    assert undivided_share([text], any_script_tokens) == 0
    assert len(any_script_tokens(text)) > 8
    assert dropped_share([text], reference_tokens) > 0.9


def test_vowel_signs_stay_with_their_letters() -> None:
    assert any_script_tokens("सीने में") == ["सीने", "में"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_rouge_of_a_text_with_itself_is_100_or_missing_with_the_remedy(text: str) -> None:
    scores = score([metric("rouge")], rows(text, text))
    assert scores.computed == {}
    assert set(scores.not_computed) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert "rouge:tokenizer=unicode" in scores.not_computed["rouge1"]
    scores = score([metric("rouge:tokenizer=unicode")], rows(text, text))
    assert [value.value for value in scores.computed.values()] == pytest.approx([100] * 4)
    assert "tokenizer:unicode-regex-" in scores.computed["rouge1"].signature
    assert scores.values()["rouge1"].metric == "rouge:tokenizer=unicode"


@pytest.mark.parametrize(
    ("language", "tokenizer", "readable"),
    [
        ("chinese", "13a", False),
        ("thai", "13a", False),
        ("thai", "zh", False),
        ("chinese", "zh", True),
        ("thai", "char", True),
        ("hindi", "13a", True),
        ("arabic", "13a", True),
    ],
)
def test_bleu_of_a_text_with_itself_is_100_or_missing_with_the_remedy(
    language: str, tokenizer: str, readable: bool
) -> None:
    text = TEXTS[language]
    scores = score([metric(f"bleu:tokenize={tokenizer}")], rows(text, text))
    if readable:
        assert scores.computed["bleu"].value == pytest.approx(100)
        assert f"tok:{tokenizer}" in scores.computed["bleu"].signature
        assert f"tok:{tokenizer}" in scores.computed["bleu4_precision"].signature
    else:
        assert "bleu:tokenize=" in scores.not_computed["bleu"]


def test_a_few_foreign_words_are_no_reason() -> None:
    mixed = "The patient, 王小明, has had chest pain and dyspnoea for three days."
    assert score([metric("rouge"), metric("bleu")], rows(mixed)).not_computed == {}


def test_a_tokenizer_that_is_not_at_hand_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    reason = missing_for("flores200")
    assert reason
    assert str(tmp_path / "models" / "flores200sacrebleuspm") in reason
    assert metric("bleu:tokenize=flores200").unavailable() == reason
    assert metric("rouge:tokenizer=flores200").unavailable() == reason
    assert missing_for("13a") is None
    assert list(tmp_path.iterdir()) == []


def test_sacrebleu_divides_as_it_does_itself() -> None:
    assert sacrebleu_tokens("13a")("It's done, 3.5 mg.") == ["It's", "done", ",", "3.5", "mg", "."]
    assert sacrebleu_tokens("char")("ab c") == ["a", "b", "c"]


def test_harness_score_says_what_is_missing_and_takes_the_remedy(
    harness: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "thai.jsonl"
    line = json.dumps({"prediction": TEXTS["thai"], "reference": TEXTS["thai"]})
    path.write_text(f"{line}\n{line}\n")
    refused = harness("score", str(path), "--metrics", "rouge")
    assert refused.exit_code == 2
    assert "rouge:tokenizer=unicode" in refused.stderr
    done = harness(
        "score", str(path), "--metrics", "rouge:tokenizer=unicode,sentences=split,chrf", "--json"
    )
    assert done.exit_code == 0, done.output
    corpus = json.loads(done.stdout)["corpus"]
    assert corpus == pytest.approx(dict.fromkeys(corpus, 100))
    assert set(corpus) == {"rouge1", "rouge2", "rougeL", "rougeLsum", "chrf"}
    unknown = harness("score", str(path), "--metrics", "rouge:tokeniser=unicode")
    assert unknown.exit_code == 2
    assert "tokenizer" in unknown.stderr


def test_the_options_of_a_metric_are_listed(harness: Callable[..., Result]) -> None:
    shown = harness("list", "metrics", "rouge").stdout
    assert "tokenizer" in shown
    assert "sentences" in shown
