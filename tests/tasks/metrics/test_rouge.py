"""ROUGE against the package whose values it must have."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tasks.metrics.rouge import Rouge, RougeOptions, rouge

NAMES = list(Rouge.names)
PACKAGE = RougeScorer(NAMES, use_stemmer=True)

# Few distinct words make many ties between longest common subsequences.
words = st.sampled_from(["a", "b", "c", "running", "runs", "Ran", "lungs", "lung", "x1", "naïve"])
sentences = st.lists(words, max_size=12).map(" ".join)
documents = st.lists(sentences, max_size=5).map("\n".join)


def package(prediction: str, reference: str) -> list[float]:
    scores = PACKAGE.score(reference, prediction)
    return [scores[name].fmeasure for name in NAMES]


@settings(max_examples=400, deadline=None)
@given(documents, documents)
@example("", "")
@example("", "the lungs are clear")
@example("\n\n", "a\n\nb")
@example("?!", "...")
@example("b\na", "a b")
@example("a\nb\na c", "c a b\nb a")
def test_equals_the_package_on_documents_of_few_words(prediction: str, reference: str) -> None:
    assert rouge(prediction, reference) == pytest.approx(package(prediction, reference), abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
@example("İstanbul ΣΑΣ \u017fK", "istanbul σας sk")
@example("a\u2028b\x85c\rd", "a b c d")
def test_equals_the_package_on_any_text(prediction: str, reference: str) -> None:
    assert rouge(prediction, reference) == pytest.approx(package(prediction, reference), abs=1e-9)


def test_texts_longer_than_a_machine_word() -> None:
    prediction = " ".join(f"w{i * 7 % 31}" for i in range(300))
    reference = "\n".join(" ".join(f"w{i * j % 29}" for i in range(90)) for j in range(1, 4))
    assert rouge(prediction, reference) == pytest.approx(package(prediction, reference), abs=1e-9)


def test_scores_are_percentages_and_the_corpus_value_is_their_mean() -> None:
    predictions = ["the lungs are clear", "no effusion", ""]
    references = ["lungs clear", "small effusion", "normal"]
    scores = Rouge().score(["", "", ""], predictions, references)
    assert tuple(scores) == Rouge.names
    for column, name in enumerate(Rouge.names):
        expected = [
            100 * package(p, r)[column] for p, r in zip(predictions, references, strict=True)
        ]
        assert scores[name].examples == pytest.approx(expected, abs=1e-9)
        assert scores[name].value == pytest.approx(sum(expected) / 3, abs=1e-9)
        assert "rouge-score:0.1.2" in scores[name].signature
    assert scores["rouge1"].value > scores["rouge2"].value


def test_sequences_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Rouge().score(["", ""], ["a", "b"], ["a"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(documents, st.lists(documents, min_size=1, max_size=3)), min_size=1))
def test_of_several_references_each_score_takes_the_best(
    pairs: list[tuple[str, list[str]]],
) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    scores = Rouge().score(["" for _ in pairs], predictions, references)
    expected = [PACKAGE.score_multi(r, p) for p, r in pairs]
    for name in NAMES:
        assert scores[name].examples == pytest.approx([100 * e[name].fmeasure for e in expected])
        assert "|references:best|" in scores[name].signature


def test_sentences_are_lines_or_split() -> None:
    """As transformers' scripts do it: a sentence a line, then the package's own rougeLsum."""
    prediction = "The lungs are clear. No effusion. Heart size is normal."
    reference = "Heart size is normal. The lungs are clear. No effusion is seen."
    by_line = package(prediction.replace(". ", ".\n"), reference.replace(". ", ".\n"))[3]
    split = Rouge(RougeOptions(sentences="split")).score([""], [prediction], [reference])
    whole = Rouge().score([""], [prediction], [reference])
    assert split["rougeLsum"].examples == pytest.approx([100 * by_line])
    assert whole["rougeLsum"].examples == whole["rougeL"].examples
    assert split["rougeLsum"].value > whole["rougeLsum"].value
    assert split["rougeL"].examples == whole["rougeL"].examples
    assert "sentences:punkt-fixed-lists" in split["rougeLsum"].signature
    assert split["rougeL"].signature == whole["rougeL"].signature
