"""One run whose model two processes divide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import Result

from harness.records.run_folder import read_report
from harness.training.trained_weights import FILE

Harness = Callable[..., Result]


@pytest.fixture
def without_dropout(tiny_t5: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-t5"
    shutil.copytree(tiny_t5, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout_rate": 0.0}))
    return folder


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "lora_ff:dropout=0.0+lprun"])
def test_a_divided_model_has_the_results_of_one_process(
    harness: Harness,
    short_run: list[str],
    without_dropout: Path,
    strangers: Path,
    tmp_path: Path,
    recipe: str,
) -> None:
    settings = ["train.batch_size=5", "train.accumulation=2", "train.max_steps=10"]
    changes = [word for setting in settings for word in ("--set", setting)]
    arguments = [*short_run[1:], "--backbone", str(without_dropout), "--compressor", recipe]
    arguments += changes
    alone = harness("run", *arguments, "--out", str(tmp_path / "alone"))
    assert alone.exit_code == 0, alone.output
    words = [sys.executable, "-m", "harness", "run", "--nproc", "2", *arguments]
    # A state is saved after every step, at which all processes must take part.
    words += ["--set", "train.parallel=fsdp", "--snapshot-every", "0"]
    process = subprocess.run(
        [*words, "--out", str(tmp_path / "two")],
        cwd=strangers,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    (single,), (double,) = [[*(tmp_path / name).iterdir()] for name in ("alone", "two")]
    assert losses(double) == pytest.approx(losses(single), rel=1e-4)
    assert len(losses(double)) == 10
    training = read_report(double).training
    assert training
    assert training.parallel == "fsdp"
    assert any("Each of the 2 processes held a share" in note for note in training.notes)
    texts = [(folder / "predictions.jsonl").read_text() for folder in (single, double)]
    assert texts[0] == texts[1]
    one, other = (load_file(folder / FILE) for folder in (single, double))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert (weight - other[name]).norm() <= 1e-3 * weight.norm() + 1e-6, name
