"""The package of examples, installed by pip and used in one run, and in one sweep of one run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import Report
from harness.api.plugins import Plugins, installed
from harness.records.run_folder import read_report

EXAMPLES = Path(__file__).parents[2] / "examples"

SETTINGS = {
    "device": "cpu",
    "metrics": "rouge,wer:case=false",
    "task_options.max_source_length": 96,
    "train.batch_size": 4,
    "train.max_steps": 4,
    "train.warmup_steps": 1,
    "train.learning_rate": 0.01,
    "train.adapter_learning_rate": 0.01,
    "train.eval_every_epochs": 0.5,
    "train.precision": "float32",
    "greedy.max_new_tokens": 4,
    "test.beams": 2,
    "test.max_new_tokens": 4,
    "probe.baseline": "off",
    "probe.warmup_steps": 1,
    "probe.steps": 1,
    "probe.rounds": 2,
    "probe.inference": False,
}

SRUN = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
"""A replacement of Slurm's srun: it records its options and runs the command here."""


@dataclass(frozen=True)
class Used:
    """Results of a run that used a plugin of each kind but the executor.

    Attributes:
        folder: the folder of the run.
        report: its report.
        events: the observer's log.
    """

    folder: Path
    report: Report
    events: list[dict[str, Any]]


@pytest.fixture(scope="session")
def site(install_package: Callable[[Path], Path]) -> Path:
    """The folder into which pip installed the examples."""
    return install_package(EXAMPLES)


@pytest.fixture(scope="module")
def plugins(site: Path) -> Iterator[Plugins]:
    """The plugins of an environment in which the examples are installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site))  # Of workers.
        importlib.invalidate_caches()
        installed.cache_clear()
        yield installed()
    installed.cache_clear()
    for module in [name for name in sys.modules if name.startswith("harness_examples")]:
        del sys.modules[module]


@pytest.fixture(scope="session")
def pegasus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Pegasus of 6+6 thin layers, random weights, and nano-t5's tokenizer."""
    import torch
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    from harness.backbones.nano import NanoT5

    tokenizer = NanoT5("nano-t5").tokenizer()
    config = PegasusConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=128,
    )
    folder = tmp_path_factory.mktemp("backbones") / "tiny-pegasus"
    torch.manual_seed(0)
    PegasusForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of 40 commits, each with one changed line, and one without a message."""
    folder = tmp_path_factory.mktemp("repository")

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)

    git("init", "--quiet")
    for number in range(41):
        (folder / "numbers.txt").write_text(f"The number is {number}\n")
        git("add", ".")
        message = f"Set the number to {number}\n\nIt was less." if number else ""
        git("commit", "--quiet", "--allow-empty-message", "--message", message)
    return folder


@pytest.fixture(scope="module")
def words(plugins: Plugins, pegasus: Path, repository: Path) -> list[str]:
    """Options of a run that uses a plugin of each kind."""
    settings = {**SETTINGS, "task_options.path": repository}
    return [
        *("--backbone", f"pegasus:{pegasus}", "--compressor", "biases+lprun"),
        *("--task", "commit_messages"),
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]


@pytest.fixture(scope="module")
def used(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Used:
    """A run that uses a plugin of each kind but the executor."""
    place = tmp_path_factory.mktemp("run")
    log = place / "events.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_EVENTS", str(log))
        folder = start(["run", *words, "--out", str(place / "results")], place / "results")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return Used(folder, read_report(folder), events)


def start(command: list[str], results: Path) -> Path:
    """Execute a command that makes one run, and return the folder of the run."""
    from harness.cli.main import app

    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    (folder,) = results.iterdir()
    return folder


@pytest.fixture
def run_folder(used: Used) -> Path:
    """The folder of the run that used a plugin of each kind."""
    return used.folder


@pytest.fixture
def report(used: Used) -> Report:
    """The report of that run."""
    return used.report


@pytest.fixture
def events(used: Used) -> list[dict[str, Any]]:
    """The observer's log of that run."""
    return used.events


@pytest.fixture
def srun_call(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The arguments with which the executor of a sweep of such a run called srun."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=":")
    results = tmp_path / "results"
    command = ["sweep", "--yes", "--out", str(results), "--timeout", "300", *words]
    folder = start([*command, "--executor", "srun:jobs=1,gpus=0,partition=night"], results)
    assert read_report(folder).status == "ok"
    return (srun.parent / "calls").read_text()
