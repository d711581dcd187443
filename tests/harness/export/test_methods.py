"""Adapters of every method of PEFT: written, read by PEFT on the base, and equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

import harness
from compressors.methods import METHODS
from harness import HarnessError
from harness.api.plugins import installed
from harness.export.check import LOGITS_LIMIT
from harness.export.manifest import read_manifest
from harness.export.peft_adapter import find_adapter, strip
from harness.model.composition import compose

MakeRun = Callable[..., Path]

SMALL = {
    "vera": "r=8",
    "vblora": "length=8,vectors=16",
    "c3a": "block=8",
    "miss": "r=8",
    "shira": "r=4",
    "road": "group=8",
    "oft": "block=8",
    "fourierft": "n=50",
    "waveft": "n=50",
    "randlora": "r=4,alpha=16",
    "gralora": "r=4",
    "prompt": "tokens=4",
    "ptuning": "tokens=4,hidden=16",
    "peft": "type=unilora",
}
"""Options that fit layers of 32 x 48."""
WITHOUT = {"bitfit", "freeze", "houlsby", "pfeiffer", "prefix"}
METHODS_OF_PEFT = [
    f"{name}:{SMALL[name]}" if name in SMALL else name for name in METHODS if name not in WITHOUT
]
VARIANTS = [
    "lora:dora=true",
    "lora:dora=true,init=pissa,r=4",
    "lora:init=olora,r=4",
    "lora:targets=all,rslora=true",
    "ia3:targets=all",
    "peft:type=lily",
]
RECIPES = METHODS_OF_PEFT + VARIANTS
FAMILIES = ["t5", "gated-t5", "bart"]


def in_turn(texts: Sequence[str]) -> pytest.MarkDecorator:
    """Test every third recipe in one family by default, and everything if slow tests run."""
    fast = {(text, FAMILIES[number % 3]) for number, text in enumerate(texts[::3])}
    cases = [
        pytest.param(family, text, marks=() if (text, family) in fast else pytest.mark.slow)
        for text in texts
        for family in FAMILIES
    ]
    return pytest.mark.parametrize(("family", "text"), cases)


@in_turn(RECIPES)
def test_peft_reads_the_adapter_on_the_base(
    tiny_folders: dict[str, Path], tmp_path: Path, family: str, text: str
) -> None:
    plugins = installed()
    backbone, recipe = plugins.backbone(str(tiny_folders[family])), plugins.recipe(text)

    def composed(recipe: Any) -> Any:
        torch.manual_seed(7)
        return compose(backbone.load("pretrained"), backbone, recipe).eval()

    model = composed(recipe)
    ids = torch.tensor([[5, 7, 11, 13, 17, 1], [8, 9, 31, 42, 44, 1]])
    # With labels, AdaLoRA that was loaded to predict has no weight for its own loss.
    inputs = {"input_ids": ids, "decoder_input_ids": ids.flip(0)}
    torch.manual_seed(1)
    with torch.no_grad():
        untrained = model(**inputs).logits
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        expected = model(**inputs).logits
    adapter = find_adapter(model, recipe)
    base = strip(composed(adapter.base_recipe(recipe)), set(backbone.skeleton().state_dict()))
    base.save_pretrained(tmp_path / "base")
    adapter.save(base, tmp_path, str(tmp_path / "base"))
    assert {path.name for path in tmp_path.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    read = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    with torch.no_grad():
        found = read(**inputs).logits
    scale = float(expected.abs().max())
    assert float((expected - untrained).abs().max()) > 10 * LOGITS_LIMIT * scale
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS_LIMIT * scale)


@pytest.mark.slow
@pytest.mark.parametrize("text", [*RECIPES, "ia3+lprun", "prompt:tokens=4+lprun", "vera:r=8+lprun"])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_process_predicts_the_same(
    make_run: MakeRun, tmp_path: Path, family: str, text: str
) -> None:
    folder = harness.export_run(make_run(family, text), tmp_path / "out", form="adapter")
    manifest = read_manifest(folder)
    assert manifest
    assert manifest.check.equal_predictions == 20
    config = json.loads((folder / "adapter_config.json").read_text())
    for name, value in config.items():
        if isinstance(value, list) and name.endswith("modules"):
            assert value == sorted(value), f"{name} depends on the process"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["ia3", "vera:r=8", "prompt:tokens=4", "lora:dora=true"])
def test_a_base_in_bfloat16_is_compared_by_log_probabilities(
    make_run: MakeRun, tmp_path: Path, text: str
) -> None:
    run = make_run("t5", text)
    folder = harness.export_run(run, tmp_path / "out", form="adapter", dtype="bfloat16")
    manifest = read_manifest(folder)
    assert manifest
    assert manifest.check.compared == "log-probabilities"


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("bitfit", "--merged"),
        ("freeze", "--merged"),
        ("houlsby:size=4", "weights.safetensors"),
        ("pfeiffer:size=4", "weights.safetensors"),
        ("prefix:tokens=4", "weights.safetensors"),
    ],
)
def test_a_method_that_peft_lacks_says_what_works(
    make_run: MakeRun, tmp_path: Path, text: str, instead: str
) -> None:
    run = make_run("bart", text)
    with pytest.raises(HarnessError, match="no adapter in the format of PEFT") as raised:
        harness.export_run(run, tmp_path / "out", form="adapter")
    assert raised.value.hint
    assert instead in raised.value.hint
    assert not list(tmp_path.iterdir())


def test_two_adapters_that_peft_cannot_hold_as_one_are_refused(
    tiny_folders: dict[str, Path],
) -> None:
    plugins = installed()
    backbone = plugins.backbone(str(tiny_folders["bart"]))
    recipe = plugins.recipe("lora:dora=true,targets=attn+lora_ff")
    model = compose(backbone.skeleton(), backbone, recipe)
    with pytest.raises(HarnessError, match="2 adapters, which PEFT can hold as one only if"):
        find_adapter(model, recipe)


def test_weights_beside_an_adapter_are_named(tiny_folders: dict[str, Path]) -> None:
    plugins = installed()
    backbone = plugins.backbone(str(tiny_folders["bart"]))
    recipe = plugins.recipe("ia3")
    model: Any = compose(backbone.skeleton(), backbone, recipe)
    model.model.encoder.layernorm_embedding.requires_grad_(True)
    with pytest.raises(HarnessError, match=r"trains 2 weights beside .*layernorm_embedding.weight"):
        find_adapter(model, recipe)
