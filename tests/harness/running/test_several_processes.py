"""One run in two processes, started by the command line and by torchrun."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from harness.records.run_folder import read_report
from harness.running.launch import is_launched

Harness = Callable[..., Result]

ONE = ["-m", "harness"]
LAUNCHED = {
    "option": [*ONE, "run", "--nproc", "2"],
    "torchrun": [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *ONE,
        "run",
    ],
}


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
@pytest.mark.parametrize(
    ("recipe", "way"), [("lora_ff:dropout=0.0+lprun", "option"), ("full", "torchrun")]
)
def test_two_processes_have_the_losses_of_one(
    harness: Harness,
    short_run: list[str],
    without_dropout: Path,
    strangers: Path,
    tmp_path: Path,
    recipe: str,
    way: str,
) -> None:
    # A step has ten examples, and the last step of an epoch eight: the shares differ in size.
    settings = ["train.batch_size=5", "train.accumulation=2", "train.max_steps=10"]
    changes = [word for setting in settings for word in ("--set", setting)]
    arguments = [
        *short_run[1:],
        "--backbone",
        str(without_dropout),
        "--compressor",
        recipe,
        *changes,
    ]
    alone = harness("run", *arguments, "--out", str(tmp_path / "alone"))
    assert alone.exit_code == 0, alone.output
    process = subprocess.run(
        [sys.executable, *LAUNCHED[way], *arguments, "--out", str(tmp_path / "two")],
        cwd=strangers,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    # Only one process prints.
    assert process.stderr.splitlines().count("train") == 1
    (single,), (double,) = [[*(tmp_path / name).iterdir()] for name in ("alone", "two")]
    assert single.name != double.name
    assert losses(double) == pytest.approx(losses(single), rel=1e-4)
    assert len(losses(double)) == 10
    reports = [read_report(folder) for folder in (single, double)]
    assert [report.training.processes for report in reports if report.training] == [1, 2]
    assert reports[0].parameters == reports[1].parameters
    texts = [(folder / "predictions.jsonl").read_text() for folder in (single, double)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
def test_a_sharded_model_is_refused_before_anything_is_done(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", f"ACCELERATE_USE_{engine}": "true"}.items():
        monkeypatch.setenv(name, value)
    result = harness("run", "--out", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert f"the accelerate configuration asks for {engine}" in result.stderr
    assert "MULTI_GPU" in result.stderr
    assert not (tmp_path / "results").exists()


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not is_launched()


@pytest.mark.slow
def test_an_error_is_printed_once(short_run: list[str], tmp_path: Path, strangers: Path) -> None:
    arguments = [*short_run[1:], "--set", "metrics=beauty"]
    words: list[Any] = [sys.executable, *ONE, "run", "--nproc", "2", *arguments, "--out", tmp_path]
    process = subprocess.run(words, cwd=strangers, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.count("Error:") == 1
    assert "Unknown metric 'beauty'" in process.stderr


@pytest.mark.slow
def test_all_processes_end_when_the_loss_is_not_finite(
    short_run: list[str], tmp_path: Path
) -> None:
    changes = ["--set", "train.learning_rate=1e38", "--compressor", "full"]
    words: list[Any] = [sys.executable, *LAUNCHED["option"], *short_run[1:], *changes]
    # The command returns when the last process has ended.
    process = subprocess.run(
        [*words, "--out", tmp_path], capture_output=True, check=False, timeout=300
    )
    assert process.returncode == 1
    (folder,) = tmp_path.glob("[!.]*")
    assert read_report(folder).status == "nan"
    assert all(map(math.isfinite, losses(folder)))


# The first process kills itself after optimizer step 4, as the out-of-memory killer does.
DIES = """
import os, signal, sys
from harness.cli.main import app
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed

class Death:
    @hookimpl
    def step_done(self, event):
        if "loss" in event.values and event.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":  # Measured processes do not register it.
    installed().manager.register(Death())
    app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_in_two_processes_resumes_with_the_same_bits(
    short_run: list[str], tmp_path: Path
) -> None:
    arguments = [*short_run[1:], "--compressor", "lora_ff+lprun", "--snapshot-every", "0"]
    torchrun = LAUNCHED["torchrun"][: -len(ONE) - 1]

    def run(results: str, *command: str) -> int:
        words = [sys.executable, *command, *arguments, "--out", str(tmp_path / results)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(words, env=env, capture_output=True, check=False).returncode

    script = tmp_path / "dies.py"
    script.write_text(DIES)
    assert run("whole", *LAUNCHED["option"]) == 0
    assert run("killed", *torchrun, str(script), "run") != 0
    assert not list((tmp_path / "killed").glob("[!.]*"))
    assert run("killed", *LAUNCHED["option"]) == 0
    (uninterrupted,), (resumed,) = [[*(tmp_path / name).iterdir()] for name in ("whole", "killed")]
    assert uninterrupted.name == resumed.name
    assert read_report(resumed).resumed
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors"):
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name
