"""SummaC: the arithmetic against the package's own, and the NLI model that feeds it.

The package is only exercised on given probabilities: its own loading of models and sentences
needs downloads and another transformers.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness import HarnessError
from tasks.metrics.checkpoint import Checkpoint
from tasks.metrics.entailment import Entailment
from tasks.metrics.sentences import split_sentences
from tasks.metrics.summac import CONV, NLI, SummaCConv, SummaCZeroShot

SOURCES = [
    "The lungs are clear bilaterally. There is no pleural effusion. The heart is not enlarged.",
    "There is a displaced fracture of the left seventh rib. No pneumothorax is seen.",
    "Short.",
    "An effusion is present on the left side.",
]
PREDICTIONS = [
    "The lungs are clear bilaterally. The heart is enlarged today.",
    "Left seventh rib fracture without pneumothorax.",
    "The lungs are clear bilaterally.",
    "Ok.",
]
REFERENCES = [""] * 4


def probabilities(premise: str, hypothesis: str) -> list[float]:
    """Fixed NLI probabilities of a pair: entailment, contradiction, neutral."""
    seed = sum(map(ord, premise)) * 1009 + sum(map(ord, hypothesis))
    values: list[float] = np.random.default_rng(seed).dirichlet([0.5, 0.5, 0.5]).tolist()
    return values


@pytest.fixture(scope="module")
def model_summac() -> Any:
    return pytest.importorskip("summac.model_summac", reason="pip install --no-deps summac==0.0.4")


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with the labels of an NLI model, in an unusual order."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("nli") / "tiny-nli"
    folder.mkdir()
    words = sorted({w.strip(".").lower() for text in SOURCES + PREDICTIONS for w in text.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=1.0,
        id2label={0: "NEUTRAL", 1: "ENTAILMENT", 2: "CONTRADICTION"},
        label2id={"NEUTRAL": 0, "ENTAILMENT": 1, "CONTRADICTION": 2},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def convolution(model_summac: Any, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    scorer = model_summac.SummaCConv(
        models=["vitc"], bins="percentile", device="cpu", imager_load_cache=False
    )
    path = tmp_path / "conv.bin"
    torch.save(scorer.state_dict(), path)
    return path


@pytest.fixture
def fixed(nli: Path, monkeypatch: pytest.MonkeyPatch) -> Entailment:
    """Our pipeline; fixed probabilities replace the last step of the NLI model."""

    def classify(_model: Any, _tokenizer: Any, _device: str, pairs: Any) -> Any:
        return np.array([probabilities(premise, hypothesis) for premise, hypothesis, _ in pairs])

    monkeypatch.setattr("tasks.metrics.entailment._classify", classify)
    return Entailment(Checkpoint(str(nli), NLI), device="cpu", batch_size=3)


@pytest.fixture
def package(model_summac: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The complete package; the same probabilities replace its tokenizer and model."""

    def load(imager: Any) -> None:
        imager.tokenizer = SimpleNamespace(
            batch_encode_plus=lambda pairs, **_: {"pairs": _OnDevice(pairs)}
        )
        imager.model = lambda pairs: {"logits": torch.tensor(_log_odds(imager, pairs.value))}

    monkeypatch.setattr(model_summac.SummaCImager, "load_nli", load)
    monkeypatch.setattr(
        model_summac.SummaCImager,
        "split_sentences",
        lambda _self, text: [s for s in split_sentences(text) if len(s) > 10],
    )
    return model_summac


class _OnDevice:
    def __init__(self, value: Any) -> None:
        self.value = value

    def to(self, _device: str) -> "_OnDevice":
        return self


def _log_odds(imager: Any, pairs: list[tuple[str, str]]) -> list[list[float]]:
    rows = np.zeros((len(pairs), 3))
    columns = [imager.entailment_idx, imager.contradiction_idx, imager.neutral_idx]
    rows[:, columns] = np.log([probabilities(*pair) for pair in pairs])
    log_odds: list[list[float]] = rows.tolist()
    return log_odds


def test_zero_shot_equals_the_package(fixed: Entailment, package: Any) -> None:
    scorer = package.SummaCZS(granularity="sentence", imager_load_cache=False, device="cpu")
    expected = scorer.score(SOURCES, PREDICTIONS)["scores"]
    score = SummaCZeroShot(fixed).score(SOURCES, PREDICTIONS, REFERENCES)["summac_zs"]
    assert score.examples == pytest.approx([100 * value for value in expected], abs=1e-4)
    assert score.examples[2:] == [0, 0]  # no sentence of more than ten characters on one side
    assert score.value == pytest.approx(100 * np.mean(expected), abs=1e-4)


def test_convolution_equals_the_package(fixed: Entailment, package: Any, convolution: Path) -> None:
    scorer = package.SummaCConv(
        models=["vitc"],
        bins="percentile",
        granularity="sentence",
        device="cpu",
        imager_load_cache=False,
    )
    scorer.load_state_dict(torch.load(convolution, weights_only=True))
    expected = scorer.score(SOURCES, PREDICTIONS)["scores"]
    metric = SummaCConv(fixed, convolution)
    score = metric.score(SOURCES, PREDICTIONS, REFERENCES)["summac_conv"]
    assert score.examples == pytest.approx([100 * value for value in expected], abs=1e-4)
    assert len({round(value, 3) for value in score.examples}) >= 3


def test_images_are_those_of_the_model_pair_by_pair(nli: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(nli).eval()
    tokenizer = AutoTokenizer.from_pretrained(nli)
    images = Entailment(Checkpoint(str(nli), NLI), device="cpu", batch_size=2).images(
        SOURCES, PREDICTIONS
    )
    assert [image.shape for image in images] == [(3, 3, 2), (3, 2, 1), (3, 1, 1), (3, 1, 1)]
    for source, prediction, image in zip(SOURCES[:2], PREDICTIONS[:2], images[:2], strict=True):
        for i, premise in enumerate(split_sentences(source)):
            for j, hypothesis in enumerate(split_sentences(prediction)):
                with torch.no_grad():
                    inputs = tokenizer(premise, hypothesis, return_tensors="pt")
                    expected = model(**inputs).logits.softmax(-1)[0, [1, 2, 0]]
                assert image[:, i, j] == pytest.approx(expected.numpy(), abs=1e-5)
    assert images[0].std() > 0.05


def test_long_texts_are_cut_to_what_the_model_takes(nli: Path) -> None:
    source = ["lungs " * 500 + "are clear. " + "The heart is enlarged today. " * 150]
    (image,) = Entailment(Checkpoint(str(nli), NLI), device="cpu").images(source, [source[0][:900]])
    assert image.shape == (3, 100, 1)
    assert image.sum(axis=0) == pytest.approx(np.ones((100, 1)), abs=1e-5)


def test_both_variants_share_one_pass(nli: Path, convolution: Path) -> None:
    shared = Entailment(Checkpoint(str(nli), NLI), device="cpu")
    first = shared.images(SOURCES, PREDICTIONS)
    assert shared.images(list(SOURCES), list(PREDICTIONS)) is first
    assert shared.images(SOURCES, PREDICTIONS[::-1]) is not first
    for metric in (SummaCZeroShot(shared), SummaCConv(shared, convolution)):
        ((name, score),) = metric.score(SOURCES, PREDICTIONS, REFERENCES).items()
        assert metric.names == (name,)
        assert f"nli:tiny-nli|weights:sha256-{shared.checkpoint.digest()}" in score.signature
        assert "summac:0.0.4" in score.signature


def test_missing_models_are_reported_with_the_remedy(
    nli: Path, convolution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONV, raising=False)
    assert CONV in (SummaCConv().unavailable() or "")
    monkeypatch.setenv(CONV, str(tmp_path / "nowhere.bin"))
    assert "nowhere.bin" in (SummaCConv().unavailable() or "")
    monkeypatch.setenv(CONV, str(convolution))

    monkeypatch.setenv(NLI, "nobody/no-such-model")
    assert "hf download nobody/no-such-model" in (SummaCConv().unavailable() or "")
    with pytest.raises(HarnessError, match="summac_zs cannot be computed"):
        SummaCZeroShot().score(SOURCES, PREDICTIONS, REFERENCES)
    monkeypatch.setenv(NLI, str(nli))
    assert SummaCConv().unavailable() is None
    assert SummaCZeroShot().unavailable() is None

    classifier = tmp_path / "sentiment"
    classifier.mkdir()
    (classifier / "config.json").write_text('{"id2label": {"0": "good", "1": "bad"}}')
    (classifier / "model.safetensors").touch()
    monkeypatch.setenv(NLI, str(classifier))
    assert "['bad', 'good']" in (SummaCZeroShot().unavailable() or "")


def test_weights_that_are_not_weights_are_refused(
    nli: Path, model_summac: Any, tmp_path: Path
) -> None:
    entailment = Entailment(Checkpoint(str(nli), NLI), device="cpu")

    def score(path: Path) -> None:
        SummaCConv(entailment, path).score(SOURCES, PREDICTIONS, REFERENCES)

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    hostile = tmp_path / "hostile.bin"
    torch.save(Payload(), hostile)
    with pytest.raises(HarnessError, match="loaded safely"):
        score(hostile)
    assert not (tmp_path / "executed").exists()

    for name, content in (("text.bin", b"hello"), ("empty.bin", b""), ("x.safetensors", b"{}")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HarnessError, match="loaded safely"):
            score(tmp_path / name)

    other = tmp_path / "other.bin"
    torch.save({"mlp.weight": torch.zeros(1, 4)}, other)
    with pytest.raises(HarnessError, match="does not hold the weights"):
        score(other)
    torch.save(torch.zeros(3), other)
    with pytest.raises(HarnessError, match="not a state dict"):
        score(other)


def test_convolution_from_safetensors_scores_the_same(
    nli: Path, convolution: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    copy = tmp_path / "conv.safetensors"
    save_file(torch.load(convolution, weights_only=True), copy)
    entailment = Entailment(Checkpoint(str(nli), NLI), device="cpu")
    one, two = (
        SummaCConv(entailment, path).score(SOURCES, PREDICTIONS, REFERENCES)["summac_conv"]
        for path in (convolution, copy)
    )
    assert one.examples == two.examples
