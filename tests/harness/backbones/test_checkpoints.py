"""Checkpoints that are incomplete, pickled, damaged, adapters or of other programs."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.backbones.pretrained import Pretrained
from harness.costs.plan import plan_recipes
from harness.model.composition import compose, count_parameters
from harness.model.flops import training_flops
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings

IDS = torch.tensor([[5, 7, 11, 1]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted weights."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, make_model: Callable[[], Any]) -> Path:
    """A model folder as save_pretrained writes it."""
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def opened(reference: str | Path) -> Pretrained:
    backbone = installed().backbone(str(reference))
    assert isinstance(backbone, Pretrained)
    return backbone


def tokenizer_of(folder: Path, size: int) -> None:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", *map(str, range(size - 2))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(folder)


def without(folder: Path, part: str) -> list[str]:
    """Remove the weights whose names contain ``part``; return their names."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    gone = [name for name in tensors if part in name]
    save_file({n: t for n, t in tensors.items() if n not in gone}, path, {"format": "pt"})
    return gone


def last_decoder_layer(backbone: Backbone) -> str:
    return "decoder.layers.6." if backbone.name == "tiny-bart" else "decoder.block.6."


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = model.eval()(input_ids=IDS, decoder_input_ids=IDS).logits
    return scores


@pytest.mark.parametrize("way", ["check", "load"])
def test_missing_weights_are_an_error_that_names_them(
    folder: Path, backbone: Backbone, way: str
) -> None:
    gone = without(folder, last_decoder_layer(backbone))
    start = opened(folder)
    with pytest.raises(HarnessError, match=rf"lacks {len(gone)} weights") as raised:
        start.check("pretrained") if way == "check" else start.load("pretrained")
    assert min(gone) in str(raised.value)
    assert f"{folder}:missing_weights=random" in str(raised.value.hint)


def test_missing_weights_that_are_allowed_are_random_and_noted(
    folder: Path, backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    gone = without(folder, last_decoder_layer(backbone))
    start = opened(f"{folder}:missing_weights=random")
    start.check("pretrained")
    torch.manual_seed(1)
    loaded, original = start.load("pretrained").state_dict(), make_model().state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in original.items() if n not in gone)
    assert any(not torch.equal(loaded[name], original[name]) for name in gone)
    [note] = start.notes
    assert note.startswith(f"The checkpoint lacks {len(gone)} weights")
    assert start.name == "model:missing_weights=random"
    assert start.version() != opened(folder).version()


def test_unexpected_weights_are_noted_and_tied_ones_are_not_missing(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "stranger": torch.ones(2)}, path, {"format": "pt"})
    start = opened(folder)
    start.check("pretrained")
    start.load("pretrained")
    assert start.notes == ["The checkpoint has 1 weight (stranger) that the model does not use."]


@pytest.mark.parametrize("form", ["bin", "legacy", "sharded bin", "sharded safetensors"])
@pytest.mark.fast_on("bart")
def test_other_forms_of_weights_give_the_same_model(
    form: str, folder: Path, cache: Path, make_model: Callable[[], Any]
) -> None:
    model = make_model()
    (folder / "model.safetensors").unlink()
    # torch.save of a whole model stores tied weights under each of their names.
    state = dict(model.state_dict())
    if form == "sharded safetensors":
        model.save_pretrained(folder, max_shard_size="20KB")
        assert (folder / "model.safetensors.index.json").is_file()
    elif form == "sharded bin":
        names = sorted(state)
        shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
        for file, held in shards.items():
            torch.save({name: state[name] for name in held}, folder / file)
        index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        new = form == "bin"
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    start = opened(folder)
    start.check("pretrained")
    torch.testing.assert_close(logits(start.load("pretrained")), logits(model), rtol=0, atol=0)
    cached = list((cache / "weights").iterdir()) if cache.exists() else []
    assert len(cached) == (0 if form == "sharded safetensors" else 1)
    converted = ["The weights were converted from pytorch_model.bin."]
    assert start.notes == (converted if cached else [])


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "plain"])
def test_a_malicious_pickle_executes_nothing(
    form: str, folder: Path, tmp_path: Path, cache: Path, make_model: Callable[[], Any]
) -> None:
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "trap"
    state = {**make_model().state_dict(), "evil": Malicious(trap)}
    path = folder / "pytorch_model.bin"
    torch.save(state, path) if form == "torch" else path.write_bytes(pickle.dumps(state, 2))
    with pytest.raises(HarnessError, match="nothing in it was executed"):
        opened(folder).check("pretrained")
    assert not trap.exists()
    assert not list((cache / "weights").iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_weights_are_an_error_at_once(name: str, share: float, folder: Path) -> None:
    path = folder / name
    if name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), path)
        (folder / "model.safetensors").unlink()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(HarnessError, match="truncated or damaged") as raised:
        opened(folder).check("pretrained")
    assert name in str(raised.value)


@pytest.mark.parametrize("way", ["check", "load"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.fast_on("t5")
def test_weights_with_nan_or_inf_are_an_error_at_once(way: str, value: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if tensors[name].ndim == 2)
    tensors[name][0, :2] = value
    save_file(tensors, path, {"format": "pt"})
    start = opened(folder)
    with pytest.raises(HarnessError, match=r"2 of the .* weights in .* not numbers"):
        start.check("pretrained") if way == "check" else start.load("pretrained")


def test_large_numbers_are_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = {name: torch.full_like(t, 3e38) for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    opened(folder).check("pretrained")


@pytest.mark.parametrize(
    ("file", "program"),
    [("tf_model.h5", "TensorFlow"), ("flax_model.msgpack", "Flax"), ("model.ckpt", "TensorFlow")],
)
def test_weights_of_other_programs_are_named(file: str, program: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(HarnessError, match=f"{file} holds those of {program}") as raised:
        opened(folder).check("pretrained")
    assert "save_pretrained" in str(raised.value.hint)


def test_a_missing_shard_and_no_weights_at_all_are_errors(folder: Path) -> None:
    index = {"weight_map": {"a": "../model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors").unlink()
    with pytest.raises(HarnessError, match="no PyTorch weights"):
        opened(folder).check("pretrained")
    opened(folder).check("random")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(HarnessError, match="2 of the 2 weight files"):
        opened(folder).check("pretrained")


def test_weights_of_another_size_are_one_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    with pytest.raises(HarnessError) as raised:
        opened(folder).check("pretrained")
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("recipe", ["full", "lora_ff"])
@pytest.mark.fast_on("gated-t5")
def test_tokens_that_were_added_are_an_error_or_grow_a_trained_embedding(
    recipe: str, folder: Path
) -> None:
    tokenizer_of(folder, 51)
    with pytest.raises(HarnessError, match=r"has 51 tokens, .* for 48: 3 were added") as raised:
        opened(folder).tokenizer()
    assert f"{folder}:extra_tokens=resize" in str(raised.value.hint)

    start = opened(f"{folder}:extra_tokens=resize")
    assert len(start.tokenizer()) == 51
    parsed = parse(recipe, installed().compressors)
    before = opened(folder).load("pretrained").get_input_embeddings().weight
    loaded = start.load("pretrained")
    torch.testing.assert_close(loaded.get_input_embeddings().weight[:48], before, rtol=0, atol=0)
    model = compose(loaded, start, parsed)
    skeleton = compose(start.skeleton(), start, parsed)
    assert count_parameters(model) == count_parameters(skeleton)
    plain = count_parameters(compose(opened(folder).load("pretrained"), opened(folder), parsed))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    rows = (51 - 48 if recipe == "full" else 51) * 16 * (1 if tied else 2)
    assert count_parameters(model).trainable - plain.trainable == rows
    last = torch.tensor([[50, 49, 48, 1]])
    model(input_ids=last, labels=last).loss.backward()
    assert model.get_input_embeddings().weight.grad is not None
    [note] = start.notes
    assert note == "The embedding was enlarged from 48 to 51 tokens and is trained."


@pytest.mark.parametrize("place", ["absolute", "beside"])
@pytest.mark.fast_on("t5", "bart")
def test_an_adapter_is_merged_into_its_base(
    place: str, folder: Path, tmp_path: Path, backbone: Backbone, make_model: Callable[[], Any]
) -> None:
    targets = list(backbone.modules(make_model(), "ffn.out"))
    adapted = get_peft_model(
        make_model(), LoraConfig(target_modules=targets, init_lora_weights=False)
    )
    expected = logits(adapted)
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(folder) if place == "absolute" else "../model"
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    start = opened(adapter)
    start.check("pretrained")
    model = start.load("pretrained")
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert start.name == "adapter"
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [n for n, _ in model.named_parameters()] == [
        n for n, _ in make_model().named_parameters()
    ]
    assert start.notes == ["The adapter 'adapter' was merged into 'model'."]
    assert start.version() != opened(folder).version()

    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(HarnessError, match="1 of its weights are missing"):
        opened(adapter).check("pretrained")


def test_an_adapter_whose_base_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    config = {"base_model_name_or_path": "/nowhere/base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(HarnessError, match="its base '/nowhere/base' is not available"):
        opened(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(HarnessError, match="not the configuration of an adapter"):
        opened(tmp_path)


@pytest.mark.parametrize("lacking", [{}, {"pad_token_id": None, "eos_token_id": None}])
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_configuration_may_lack_token_ids(
    kind: str, lacking: dict[str, Any], tmp_path: Path
) -> None:
    depth = {"num_layers": 1} if kind == "t5" else {"encoder_layers": 1, "decoder_layers": 1}
    config = {"model_type": kind, "d_model": 16, "vocab_size": 64, **depth, **lacking}
    (tmp_path / "config.json").write_text(json.dumps(config))
    start = opened(tmp_path)
    expected = {"t5": (0, 1, 0), "bart": (1, 2, 2)}[kind]
    for model in (start.skeleton(), start.load("random")):
        for config_of_model in (model.config, model.generation_config):
            ids = (
                config_of_model.pad_token_id,
                config_of_model.eos_token_id,
                config_of_model.decoder_start_token_id,
            )
            assert ids == expected


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"model_type": "t5", "feed_forward_proj": "a-b-c"}, "feed_forward_proj"),
        ({"model_type": "t5", "feed_forward_proj": "gated-nothing"}, "nothing"),
        ({"model_type": "t5", "d_model": "wide"}, "d_model"),
        ({"model_type": "t5", "vocab_size": 10, "pad_token_id": 10}, "pad_token_id=10"),
        ({"model_type": "bart", "d_model": 10, "encoder_attention_heads": 3}, "embed_dim"),
        ({}, "model_type"),
    ],
)
def test_a_configuration_that_describes_no_model_is_one_line(
    broken: dict[str, Any], what: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(HarnessError) as raised:
        opened(tmp_path).skeleton()
    assert what in raised.value.message
    assert "\n" not in raised.value.message


def test_plan_takes_a_t5_configuration_without_a_start_token(
    tmp_path: Path, harness: Callable[..., Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "num_layers": 1}))
    result = harness("plan", "--backbone", str(tmp_path), "--compressor", "lora_ff", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["memory"]["peak_bytes"] > 0


@pytest.mark.parametrize("wrong", ["missing=random", "extra_tokens=maybe"])
def test_options_that_there_are_not_are_errors(wrong: str, folder: Path) -> None:
    with pytest.raises(HarnessError, match="option"):
        opened(f"{folder}:{wrong}")


@pytest.mark.slow
def test_layers_dropped_at_random_are_never_dropped_from_a_skeleton(tmp_path: Path) -> None:
    flops, memory = [], []
    recipe = parse("lora_ff", installed().compressors)
    for drop in (0.0, 0.9):
        config = {"model_type": "bart", "d_model": 16, "vocab_size": 64}
        layers = {"encoder_layers": 8, "decoder_layers": 8}
        drops = {"encoder_layerdrop": drop, "decoder_layerdrop": drop}
        (tmp_path / "config.json").write_text(json.dumps(config | layers | drops))
        state = torch.get_rng_state()
        flops.append(training_flops(opened(tmp_path).skeleton(), 8, 4).total)
        assert torch.equal(state, torch.get_rng_state())
        spec = RunSpec(device="cpu", train=TrainSettings(checkpointing="on"))
        memory.append(plan_recipes(opened(tmp_path), [recipe], 8, 4, spec=spec)[0].memory)
    assert flops[0] == flops[1]
    assert memory[0]
    assert memory[1]
    assert memory[0].parts == memory[1].parts


def test_a_sentencepiece_model_is_a_tokenizer(tmp_path: Path) -> None:
    """Its ids are those of the sentencepiece library, and decoding restores the text."""
    import sentencepiece

    texts = [f"die {a} {b}e Größe, 5 mg" for a in ("rote", "kleine") for b in ("Blut", "Herz")]
    prefix = tmp_path / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 5),
        model_prefix=str(prefix),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "spiece.vocab").unlink()
    config = {"model_type": "t5", "vocab_size": 256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = opened(tmp_path).tokenizer()
    own = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    for text in [*texts, "  die  Größe rote "]:
        ids = tokenizer(text).input_ids
        assert ids == [*own.encode(text), 1]
        assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(text.split())
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_opening_the_list_of_backbones_stays_light() -> None:
    code = (
        "import sys, harness.backbones.references\n"
        "print({'torch', 'transformers', 'peft', 'sentencepiece'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
