"""Backbones: published shapes, roles, folders, and errors for missing weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from harness import STACKS, Backbone, HarnessError
from harness.api.plugins import installed
from harness.backbones.bart import Bart
from harness.backbones.shapes import SHAPES
from harness.backbones.t5 import T5
from harness.model.composition import count_parameters

IDS = torch.tensor([[5, 7, 11, 1]])


def named(reference: str) -> Backbone:
    backbone = installed().backbone(reference)
    assert isinstance(backbone, Backbone)
    return backbone


@pytest.fixture
def folder(tmp_path: Path, backbone: Backbone, make_model: Callable[[], Any]) -> Path:
    """A model folder as save_pretrained writes it, with a tokenizer of 40 entries."""
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", *map(str, range(38))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("reference", "parameters"),
    [
        # Sizes of the published checkpoints, as the model hub states them.
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-large", 737_668_096),
        ("t5-3b", 2_851_598_336),
        ("t5-11b", 11_307_321_344),
        ("t5-v1_1-small", 76_961_152),
        ("flan-t5-base", 247_577_856),
        ("flan-t5-large", 783_150_080),
        ("flan-t5-xl", 2_849_757_184),
        ("flan-t5-xxl", 11_135_332_352),
        ("bart-base", 139_420_416),
        ("bart-large", 406_291_456),
    ],
)
def test_skeletons_have_the_published_number_of_parameters(reference: str, parameters: int) -> None:
    skeleton = named(reference).skeleton()
    assert count_parameters(skeleton).total == parameters
    assert all(parameter.is_meta for parameter in skeleton.parameters())


@pytest.mark.parametrize("reference", sorted(SHAPES))
def test_summaries_state_the_depth_that_the_shape_has(reference: str) -> None:
    backbone = named(reference)
    skeleton = backbone.skeleton()
    depths = "+".join(str(len(backbone.layers(skeleton, stack))) for stack in STACKS)
    assert SHAPES[reference].summary.startswith(f"{depths} layers")


def test_roles_cover_every_linear_layer_once(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    model = make_model()
    attention = [f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkv"]
    roles = [*attention, "self_attn.out", "cross_attn.out", "ffn.in", "ffn.out"]
    names_and_roles = [(name, role) for role in roles for name in backbone.modules(model, role)]  # type: ignore[arg-type]
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }
    assert sorted(name for name, _ in names_and_roles) == sorted(linear)

    counts = {role: sum(1 for _, r in names_and_roles if r == role) for role in roles}
    gated = model.config.model_type == "t5" and model.config.is_gated_act
    assert counts["self_attn.q"] == 8 + 7
    assert counts["cross_attn.v"] == 7
    assert counts["ffn.in"] == (8 + 7) * (2 if gated else 1)
    assert counts["ffn.out"] == 8 + 7


def test_roles_name_modules_by_their_path(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    model = make_model()
    for name, module in backbone.modules(model, "cross_attn.q").items():
        assert model.get_submodule(name) is module


@pytest.mark.parametrize("kept", [[], [0, 1], [2, 1], [1, 1], [9], [1, 20]])
def test_layers_that_are_not_there_cannot_be_kept(
    backbone: Backbone, make_model: Callable[[], Any], kept: list[int]
) -> None:
    with pytest.raises(HarnessError, match="Cannot keep the layers"):
        backbone.keep_layers(make_model(), "encoder", kept)


def test_random_weights_follow_the_seed_and_are_ready_to_train(
    backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    one, same = make_model(), make_model()
    assert one.training
    assert {p.dtype for p in one.parameters()} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    other = backbone.load("random")
    assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_a_folder_is_a_backbone_of_its_family(
    folder: Path, backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    opened = named(str(folder))
    assert isinstance(opened, Bart if backbone.name == "tiny-bart" else T5)
    assert opened.name == "model"
    model, expected = opened.load("pretrained").eval(), make_model().eval()
    with torch.no_grad():
        logits = model(input_ids=IDS, decoder_input_ids=IDS).logits
        torch.testing.assert_close(
            logits, expected(input_ids=IDS, decoder_input_ids=IDS).logits, rtol=0, atol=0
        )
    assert len(opened.tokenizer()) == 40
    assert count_parameters(opened.skeleton()) == count_parameters(expected)


def test_the_embedding_is_cut_to_a_folders_own_tokenizer(folder: Path) -> None:
    opened = named(str(folder))
    model = opened.load("pretrained")
    before = model.get_input_embeddings().weight.detach().clone()
    opened.resize_to_tokenizer(model)
    assert model.get_input_embeddings().weight.shape == (40, 16)
    assert model.get_output_embeddings().weight.shape == (40, 16)
    assert model.config.vocab_size == 40
    torch.testing.assert_close(model.get_input_embeddings().weight, before[:40], rtol=0, atol=0)
    assert model(input_ids=IDS, labels=IDS).logits.shape[-1] == 40


def test_only_gated_t5_has_an_lm_head_of_its_own_and_keeps_it(
    folder: Path, backbone: Backbone
) -> None:
    own = backbone.config().to_dict().get("is_gated_act", False)
    opened = named(str(folder))
    for model in (backbone.skeleton(), opened.load("random"), opened.load("pretrained")):
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert tied == (not own)
        model.tie_weights()
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert tied == (not own)


def test_a_relative_folder_is_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert named("model").name == "model"
    assert named("./model/").name == "model"


def test_a_missing_folder_is_an_error() -> None:
    with pytest.raises(HarnessError, match=r"no model in the folder 'nowhere'.*config\.json"):
        named("./nowhere")


def test_another_architecture_is_an_error_that_says_what_is_supported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(HarnessError, match=r"'bert' of .* is not supported") as raised:
        named(str(tmp_path))
    assert "t5, bart" in str(raised.value)


@pytest.mark.parametrize("what", ["load", "tokenizer"])
def test_what_the_hub_cannot_supply_is_an_error_that_names_each_way(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = named("t5-large")
    with pytest.raises(HarnessError, match="'t5-large' is not on this machine") as raised:
        backbone.load("pretrained") if what == "load" else backbone.tokenizer()
    hint = str(raised.value.hint)
    for way in ("hf download google-t5/t5-large", "--backbone /path/to", "HF_HOME", "nano-t5"):
        assert way in hint


def test_an_unknown_hub_id_is_an_error() -> None:
    with pytest.raises(HarnessError, match="'nobody/no-such-model' is not on this machine"):
        named("nobody/no-such-model")
