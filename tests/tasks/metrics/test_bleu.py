"""BLEU and chrF against sacreBLEU called directly, on the corpus and on resamples of it."""

import numpy as np
import pytest
import sacrebleu

from harness import Score
from tasks.metrics.bleu import Bleu, BleuOptions, Chrf

PREDICTIONS = [
    "No acute cardiopulmonary process.",
    "Small left pleural effusion, unchanged from the prior study of the chest.",
    "Right lower lobe pneumonia.",
    "",
    "Stable 3.5 cm mass in the left kidney, no hydronephrosis.",
]
REFERENCES = [
    "No acute cardiopulmonary abnormality.",
    "Small left pleural effusion, unchanged from the prior study; no pneumothorax.",
    "Findings that are concerning for right lower lobe pneumonia",
    "Normal.",
    "Stable 3.5 cm mass in the left kidney; no stones.",
]


def scores() -> dict[str, Score]:
    sources = [""] * len(PREDICTIONS)
    return Bleu().score(sources, PREDICTIONS, REFERENCES) | Chrf().score(
        sources, PREDICTIONS, REFERENCES
    )


def directly(indices: list[int]) -> dict[str, float]:
    predictions = [PREDICTIONS[i] for i in indices]
    references = [[REFERENCES[i] for i in indices]]
    bleu = sacrebleu.corpus_bleu(predictions, references)
    return {
        "bleu": bleu.score,
        "bleu1_precision": bleu.precisions[0],
        "bleu4_precision": bleu.precisions[3],
        "chrf": sacrebleu.corpus_chrf(predictions, references).score,
    }


def test_corpus_values_equal_the_package() -> None:
    expected = directly(list(range(len(PREDICTIONS))))
    assert {name: score.value for name, score in scores().items()} == pytest.approx(expected)


def test_resamples_are_recomputed_and_not_averaged() -> None:
    resamples = [[0, 0, 1, 4, 4], [1, 1, 1, 1, 2], [4, 3, 2, 1, 0]]
    counts = np.array([np.bincount(indices, minlength=5) for indices in resamples])
    for name, score in scores().items():
        expected = [directly(indices)[name] for indices in resamples]
        assert score.aggregate(counts @ score.statistics) == pytest.approx(expected)
        assert score.value != pytest.approx(np.mean(score.examples))


def test_example_values_are_those_of_single_sentences() -> None:
    computed = scores()
    for index, (prediction, reference) in enumerate(zip(PREDICTIONS, REFERENCES, strict=True)):
        bleu = sacrebleu.sentence_bleu(prediction, [reference])
        chrf = sacrebleu.sentence_chrf(prediction, [reference])
        assert computed["bleu"].examples[index] == pytest.approx(bleu.score)
        assert computed["chrf"].examples[index] == pytest.approx(chrf.score)
        assert computed["bleu1_precision"].examples[index] == pytest.approx(bleu.precisions[0])


def test_no_shared_four_grams_is_zero_precision() -> None:
    computed = Bleu().score([""], ["a b c d e"], ["a c b d e"])
    assert computed["bleu1_precision"].value == 100
    assert computed["bleu4_precision"].value == 0
    assert computed["bleu"].value > 0  # smoothed


def test_precisions_ignore_the_brevity_that_bleu_punishes() -> None:
    computed = Bleu().score([""], ["the left lung is clear"], ["the left lung is clear " * 4])
    assert computed["bleu4_precision"].value == 100
    assert computed["bleu"].value < 10


def test_signatures_pin_the_implementation() -> None:
    signatures = {name: score.signature for name, score in scores().items()}
    assert len(set(signatures.values())) == 4
    for signature in signatures.values():
        assert f"version:{sacrebleu.__version__}" in signature
    assert "tok:13a" in signatures["bleu"]
    assert "tok:13a" in signatures["bleu4_precision"]


def test_several_references_are_those_of_the_package() -> None:
    several: list[str | list[str]] = [
        [REFERENCES[0], "No process."],
        REFERENCES[1],
        ["Pneumonia.", "Right lower lobe pneumonia.", REFERENCES[2]],
        REFERENCES[3],
        [REFERENCES[4]],
    ]
    lists = [[each] if isinstance(each, str) else each for each in several]
    streams = [[each[i] if i < len(each) else None for each in lists] for i in range(3)]
    computed = Bleu().score([""] * 5, PREDICTIONS, several) | Chrf().score(
        [""] * 5, PREDICTIONS, several
    )
    bleu = sacrebleu.corpus_bleu(PREDICTIONS, streams)  # type: ignore[arg-type]
    assert computed["bleu"].value == pytest.approx(bleu.score)
    assert computed["bleu4_precision"].value == pytest.approx(bleu.precisions[3])
    chrf = sacrebleu.corpus_chrf(PREDICTIONS, streams)  # type: ignore[arg-type]
    assert computed["chrf"].value == pytest.approx(chrf.score)
    for name in computed:
        assert "nrefs:var" in computed[name].signature
    assert computed["bleu"].value > scores()["bleu"].value


@pytest.mark.parametrize("tokenizer", ["intl", "char", "zh", "none"])
def test_the_tokenizer_is_the_packages(tokenizer: str) -> None:
    options = BleuOptions.model_validate({"tokenize": tokenizer})
    bleu = Bleu(options).score([""] * 5, PREDICTIONS, REFERENCES)["bleu"]
    expected = sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES], tokenize=tokenizer)
    assert bleu.value == pytest.approx(expected.score)
    assert f"tok:{tokenizer}|" in bleu.signature
