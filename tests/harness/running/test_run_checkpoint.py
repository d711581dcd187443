"""Runs from an odd checkpoint: refused with a remedy, or allowed and noted in the report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from typer.testing import Result

from harness.records.run_folder import read_report


@pytest.fixture
def odd(tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pickled checkpoint without its last decoder layer; its tokenizer has 3 more tokens."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "odd"
    shutil.copytree(tiny_t5, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    incomplete = {name: t for name, t in weights.items() if "decoder.block.5." not in name}
    torch.save(incomplete, folder / "pytorch_model.bin")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["nodule", "cyst", "spleen"])
    tokenizer.save_pretrained(folder)
    return folder


def test_an_odd_checkpoint_is_refused_until_allowed_and_then_noted(
    odd: Path, short_run: list[str], tmp_path: Path, harness: Callable[..., Result]
) -> None:
    out = tmp_path / "results"
    command = [*short_run, "--compressor", "lora_ff", "--out", str(out), "--backbone"]
    options = ""
    for option in ("extra_tokens=resize", "missing_weights=random"):
        refused = harness(*command, f"{odd}{options}")
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output
        options += f":{option}"
        assert options in "".join(refused.stderr.split())
        assert not list(out.glob("*"))

    finished = harness(*command, f"{odd}{options}", columns=400)
    assert finished.exit_code == 0, finished.output
    [folder] = out.iterdir()
    report = read_report(folder)
    converted, lacking, grown = report.checkpoint_notes
    assert converted == "The weights were converted from pytorch_model.bin."
    assert lacking.startswith("The checkpoint lacks 13 weights (decoder.block.5.")
    assert grown.startswith("The embedding was enlarged from ")
    assert lacking in finished.stderr
    assert report.backbone == "odd:extra_tokens=resize:missing_weights=random"

    size = len(AutoTokenizer.from_pretrained(odd))
    weights = load_file(folder / "weights.safetensors")
    assert weights["shared.weight"].shape == (size, 32)
    assert report.parameters
    assert report.parameters.trainable == sum(tensor.numel() for tensor in weights.values())
    assert report.handover
    assert report.handover.largest_logit_difference < 1e-4
