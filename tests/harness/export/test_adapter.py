"""Bases of adapters: beside them, shared, rebuilt from the original, or the original itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from transformers import AutoModelForSeq2SeqLM

import harness
from harness import HarnessError, file_hash
from harness.export.low_rank import read_updates
from harness.export.manifest import read_manifest
from harness.export.peft_adapter import LowRank, strip

MakeRun = Callable[..., Path]


@pytest.mark.slow
def test_adapters_of_one_structure_share_a_base(make_run: MakeRun, tmp_path: Path) -> None:
    base = tmp_path / "base"
    first = make_run("bart", "lora_ff+lprun")
    second = make_run("bart", "lora_qv+lprun", seed=1)
    folders = [
        harness.export_run(run, tmp_path / name, form="adapter", base=base)
        for run, name in ((first, "one"), (second, "two"))
    ]
    manifests = [read_manifest(folder) for folder in folders]
    assert all(manifest and manifest.base == "../base" for manifest in manifests)
    assert len({manifest.base_sha256 for manifest in manifests if manifest}) == 1
    assert not any((folder / "base").exists() for folder in folders)
    before = file_hash(base / "model.safetensors")
    other = make_run("bart", "lora_ff+lprun:strategy=top,drop=2")
    with pytest.raises(HarnessError, match=r"something else than the base[^\n]*\n.*--base FOLDER"):
        harness.export_run(other, tmp_path / "three", form="adapter", base=base)
    assert file_hash(base / "model.safetensors") == before
    assert {path.name for path in tmp_path.iterdir()} == {"base", "one", "two"}


def test_an_unpruned_base_is_the_original(
    make_run: MakeRun, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = harness.export_run(make_run("bart", "lora_qv"), tmp_path / "out", form="adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folders["bart"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "harness.json",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        # The position bias of T5 moves, because its first block is dropped.
        ("t5", "lora_ff:paper_compat=true+lprun:strategy=bottom,drop=2"),
        ("gated-t5", "lora_ff+lprun"),
        ("bart", "lora_ff+lprun"),
    ],
)
def test_a_script_rebuilds_the_base(
    make_run: MakeRun, tiny_folders: dict[str, Path], tmp_path: Path, family: str, recipe: str
) -> None:
    run = make_run(family, recipe)
    folder = harness.export_run(run, tmp_path / "out", form="adapter", rebuild=True)
    written = harness.export_run(run, tmp_path / "whole", form="adapter")
    assert not (folder / "base").exists()
    program = [sys.executable, str(folder / "rebuild_base.py")]
    subprocess.run(program, check=True, capture_output=True)
    weights = "base/model.safetensors"
    assert file_hash(folder / weights) == file_hash(written / weights)
    assert (folder / "base" / "tokenizer.json").is_file()
    # A model of the same structure with other weights.
    wrong = AutoModelForSeq2SeqLM.from_pretrained(tiny_folders[family])
    wrong.get_input_embeddings().weight.data[5] += 1
    wrong.save_pretrained(tmp_path / "wrong")
    other = ["--out", str(tmp_path / "rebuilt"), "--original", str(tmp_path / "wrong")]
    process = subprocess.run([*program, *other], check=False, capture_output=True, text=True)
    assert "the weights have the hash" in process.stderr
    assert not (tmp_path / "rebuilt").exists()


def test_a_base_cannot_lie_in_the_adapter(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run("bart", "lora_qv"), tmp_path / "out"
    with pytest.raises(HarnessError, match="lies in the folder of the adapter"):
        harness.export_run(run, out, form="adapter", base=out / "base")


def test_several_adapters_of_one_layer_become_one(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = str(tiny_folders["bart"])
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    for name, rank, alpha, modules in (("a", 2, 8, ["fc1"]), ("b", 3, 3, ["fc1", "q_proj"])):
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=modules, init_lora_weights=False
        )
        inject_adapter_in_model(config, model, adapter_name=name)
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.set_adapter([name for name in ("a", "b") if name in layer.lora_A])
    ids = torch.tensor([[5, 6, 7, 1]])
    expected = model.eval()(input_ids=ids, labels=ids).logits
    updates = read_updates(model)
    assert updates["model.encoder.layers.0.fc1"].rank == 5
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder)
    LowRank(updates).save(plain, tmp_path, folder)
    fresh = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    before = fresh(input_ids=ids, labels=ids).logits
    adapted = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    found = adapted(input_ids=ids, labels=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (before - expected).abs().max() > 0.1


def test_a_stripped_model_is_the_original(tiny_folders: dict[str, Path]) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(str(tiny_folders["bart"]))
    names = set(model.state_dict())
    config = LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False)
    inject_adapter_in_model(config, model, adapter_name="a")
    assert set(model.state_dict()) != names
    assert set(strip(model, names).state_dict()) == names
