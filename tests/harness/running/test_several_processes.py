"""One run in two processes, started by the command line and by torchrun."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import Result

from harness.records.report import Report
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
    check_costs(*reports)


def check_costs(single: Report, double: Report) -> None:
    assert single.process_costs is None
    assert single.not_measured["process_costs"] == "one process trained"
    costs, parameters = double.process_costs, double.parameters
    assert costs
    assert parameters
    assert (costs.processes, len(costs.ranks)) == (2, 2)
    assert sum(r.tokens_per_s for r in costs.ranks) == pytest.approx(costs.tokens_per_s)
    low, high = costs.efficiency_ci
    assert low <= costs.efficiency <= high
    assert costs.least_bytes_per_step == 2 * 4 * parameters.trainable
    # Gradients, and little else: the loss, and the meetings before and after a window.
    assert costs.sent_bytes_per_step
    assert 1 <= costs.sent_bytes_per_step / costs.least_bytes_per_step < 1.2
    for rank in costs.ranks:
        assert rank.sent_bytes_per_step == pytest.approx(costs.sent_bytes_per_step / 2, rel=0.1)
        assert rank.peak_bytes > 2**20


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


@pytest.mark.slow
@pytest.mark.parametrize("began_with", [1, 2])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    short_run: list[str], without_dropout: Path, tmp_path: Path, began_with: int
) -> None:
    arguments = ["--backbone", str(without_dropout), "--compressor", "full", "--snapshot-every"]
    arguments = [*short_run[1:], *arguments, "0", "--set", "train.max_steps=8"]

    def run(results: str, *command: str) -> int:
        words = [sys.executable, *command, *arguments, "--out", str(tmp_path / results)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(words, env=env, capture_output=True, check=False).returncode

    script = tmp_path / "dies.py"
    script.write_text(DIES)
    torchrun = [*LAUNCHED["torchrun"][: -len(ONE) - 1], str(script), "run"]
    first, second = [str(script), "run"], LAUNCHED["option"]
    if began_with == 2:
        first, second = torchrun, [*ONE, "run"]
    assert run("whole", *ONE, "run") == 0
    assert run("killed", *first) != 0
    assert not list((tmp_path / "killed").glob("[!.]*"))
    assert run("killed", *second) == 0
    (uninterrupted,), (resumed,) = [[*(tmp_path / name).iterdir()] for name in ("whole", "killed")]
    assert losses(resumed) == pytest.approx(losses(uninterrupted), rel=1e-4)
    assert len(losses(resumed)) == 8
    report = read_report(resumed)
    assert report.id == resumed.name
    assert report.training
    assert report.training.process_counts == {0: began_with, 3: 3 - began_with}
    # The same number of threads and of processes as a run without a break has the same id.
    assert (resumed.name == uninterrupted.name) == (began_with == 2)


class LaunchedRun:
    """A run that the command starts in two processes.

    Args:
        arguments: arguments of ``harness run``.
        results: the folder of all runs.
        environment: further environment variables.
    """

    def __init__(self, arguments: list[str], results: Path, **environment: str) -> None:
        self.results = results
        words = [sys.executable, *ONE, "run", "--nproc", "2", *arguments, "--snapshot-every", "0"]
        self._process = subprocess.Popen(
            [*words, "--out", str(results)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signal_in_training(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a process of the group after the third optimizer step."""
        while not any(
            path.read_text().count("loss") >= 3 for path in self.results.glob(".*/history.jsonl")
        ):
            assert self._process.poll() is None
            time.sleep(0.01)
        launcher = psutil.Process(self._process.pid)
        (process,) = [p for p in launcher.children() if p.environ().get("RANK") == str(rank)]
        process.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the messages."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        _, messages = self._process.communicate(timeout=900)
        left = psutil.wait_procs(started, timeout=10)[1]
        assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
        return self._process.returncode, messages


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_goes_on_after_a_process_was_killed(
    short_run: list[str], tmp_path: Path, rank: int
) -> None:
    arguments = [*short_run[1:], "--compressor", "lora_ff+lprun", "--set", "train.max_steps=20"]
    whole = LaunchedRun(arguments, tmp_path / "whole")
    assert whole.finish()[0] == 0
    killed = LaunchedRun([*arguments, "--max-restarts", "1"], tmp_path / "killed")
    killed.signal_in_training(rank, signal.SIGKILL)
    status, messages = killed.finish()
    assert status == 0, messages
    assert f"Process {rank} was killed by SIGKILL. Restart 1 of 1" in messages
    (uninterrupted,), (resumed,) = [[*(tmp_path / name).iterdir()] for name in ("whole", "killed")]
    assert uninterrupted.name == resumed.name
    assert [resumption.phase for resumption in read_report(resumed).resumed] == ["train"]
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors"):
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number", "said"),
    [
        (0, signal.SIGKILL, "Process 0 was killed by SIGKILL."),
        (1, signal.SIGKILL, "Process 1 was killed by SIGKILL."),
        (1, signal.SIGSTOP, "Process 1 did not answer within 20 seconds."),
    ],
)
def test_a_lost_process_ends_the_run_with_one_message_and_one_report(
    short_run: list[str], tmp_path: Path, rank: int, number: signal.Signals, said: str
) -> None:
    arguments = [*short_run[1:], "--set", "train.max_steps=5000"]
    run = LaunchedRun(arguments, tmp_path, HARNESS_PROCESS_TIMEOUT="20")
    run.signal_in_training(rank, number)
    status, messages = run.finish()
    assert status != 0
    assert messages.count("Process ") == 1, messages
    assert said in messages
    assert "Traceback" not in messages
    (folder,) = tmp_path.iterdir()
    assert str(folder) in messages
    report = read_report(folder)
    assert report.status == "error"
    assert report.failure
    assert (report.failure.phase, report.failure.message) == ("train", said)
