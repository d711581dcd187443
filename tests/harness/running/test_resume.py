"""A run that is killed, even several times, resumes and ends with the same files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from harness.api.events import Evaluated, PhaseStarted, StepDone
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.records.run_folder import TRAINING_STATE, RunFolder, read_report
from harness.records.tensor_file import write_tensors
from harness.running.adoption import adopt_unfinished
from harness.running.identity import DIVISION_DIGITS, identity
from harness.running.inputs import read_inputs
from harness.running.run import Run
from harness.spec.run_spec import read_toml, resolve
from harness.training.resolved_run import resolve_run

# Runs a command and kills itself at a phase and step, as the out-of-memory killer does.
DIES = """
import os, signal, sys
from harness.cli.main import app
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed

phase, step = sys.argv[1].split(":")

class Death:
    now = None

    @hookimpl
    def phase_started(self, event):
        self.now = event.phase
        self.die(0)

    @hookimpl
    def step_done(self, event):
        self.die(event.step)

    def die(self, done):
        if (self.now, done) == (phase, int(step)):
            os.kill(os.getpid(), signal.SIGKILL)

installed().manager.register(Death())
app(sys.argv[2:])
"""
DEATHS = ["probe memory:0", "train:2", "train:5", "evaluate:0", "evaluate:2", "hand-over:0"]


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [DEATHS, ["train:4"]], ids=["everywhere", "once"])
def test_a_run_killed_at_any_moment_ends_with_the_same_files(
    finished_run: Any, tmp_path: Path, deaths: list[str]
) -> None:
    uninterrupted: Path = finished_run.folder
    command = [
        "run",
        str(uninterrupted / "spec.toml"),
        "--out",
        str(tmp_path),
        "--snapshot-every",
        "0",
    ]
    for moment in deaths:
        killed = subprocess.run([sys.executable, "-c", DIES, moment, *command], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert not list(tmp_path.glob("[!.]*"))
    subprocess.run([sys.executable, "-m", "harness", *command], check=True)
    (folder,) = tmp_path.iterdir()
    assert folder.name == uninterrupted.name
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors", "spec.toml"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in uninterrupted.iterdir()
    )
    expected, resumed = read_report(uninterrupted), read_report(folder)
    assert (expected.quality, expected.decoding, expected.handover) == (
        resumed.quality,
        resumed.decoding,
        resumed.handover,
    )
    assert expected.resumed == []
    assert [(r.phase, r.step) for r in resumed.resumed] == [
        (moment.partition(":")[0], int(moment[-1]) - 1 if moment.startswith("train") else None)
        for moment in deaths
    ]


class Stopper:
    """An observer that interrupts, as Ctrl-C does, at a step of a phase."""

    def __init__(self, step: int, phase: str) -> None:
        self.step = step
        self.phase = phase
        self.phases: list[str] = []
        self.steps: list[int] = []

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        self.phases.append(event.phase)

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        if self.phases[-1] == self.phase:
            self.steps.append(event.step)
            if event.step == self.step:
                raise KeyboardInterrupt

    @hookimpl
    def evaluated(self, event: Evaluated) -> None:
        pass


@pytest.fixture
def attempt(finished_run: Any, tmp_path: Path) -> Callable[..., Stopper]:
    """Run the spec of the finished run in another folder; interrupt it after a step."""
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")

    def start(step: int, phase: str = "train") -> Stopper:
        stopper = Stopper(step, phase)
        manager = installed().manager
        manager.register(stopper)
        try:
            Run(spec, installed(), tmp_path, save_state_seconds=0).execute()
        finally:
            manager.unregister(stopper)
        return stopper

    return start


def test_an_interrupted_run_resumes_and_repeats_no_phase(
    finished_run: Any, tmp_path: Path, attempt: Callable[..., Stopper]
) -> None:
    first = attempt(4)
    (folder,) = tmp_path.iterdir()
    stopped = read_report(folder)
    assert (stopped.status, stopped.failure and stopped.failure.phase) == ("interrupted", "train")
    second = attempt(0)
    assert first.steps + second.steps == [1, 2, 3, 4, 4, 5, 6]
    assert [p for p in second.phases if p.startswith("probe")] == []
    (again,) = tmp_path.iterdir()
    assert again == folder
    report = read_report(folder)
    assert (report.status, report.failure) == ("ok", None)
    assert [(r.phase, r.step) for r in report.resumed] == [("train", 3)]
    assert (report.speed, report.memory) == (stopped.speed, stopped.memory)
    assert report.training
    assert report.seconds > report.training.seconds > 0
    uninterrupted = finished_run.folder
    for name in ("predictions.jsonl", "history.jsonl", "weights.safetensors"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name


def as_if_written_by(processes: int, folder: Path) -> Path:
    """Make a stopped run one that so many processes began; return its folder."""
    path = folder / TRAINING_STATE
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    progress = json.loads(header["progress"])
    assert progress["divisions"] == [[0, 1]]
    header["progress"] = json.dumps({**progress, "divisions": [[0, processes]]})
    write_tensors(path, tensors, header)
    return folder.rename(folder.with_name(f"{folder.name[:-DIVISION_DIGITS]}0000"))


def test_a_run_that_two_processes_began_goes_on_in_one(
    finished_run: Any, tmp_path: Path, attempt: Callable[..., Stopper]
) -> None:
    first = attempt(4)
    (stopped,) = tmp_path.iterdir()
    as_if_written_by(2, stopped)
    second = attempt(0)
    assert first.steps + second.steps == [1, 2, 3, 4, 4, 5, 6]
    (folder,) = tmp_path.iterdir()
    uninterrupted: Path = finished_run.folder
    assert folder.name == uninterrupted.name
    for name in ("history.jsonl", "weights.safetensors", "predictions.jsonl"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    report = read_report(folder)
    assert report.id == folder.name
    assert [(r.phase, r.step, r.processes) for r in report.resumed] == [("train", 3, 1)]
    assert report.training
    assert report.training.processes == 1
    assert report.training.process_counts == {0: 2, 3: 1}
    assert "steps 1 to 3 by 2, steps 4 to 6 by 1" in report.training.notes[-1]


def test_only_an_idle_run_of_another_number_of_processes_is_adopted(
    tmp_path: Path, attempt: Callable[..., Stopper]
) -> None:
    attempt(4)
    (stopped,) = tmp_path.iterdir()
    other = stopped.rename(stopped.with_name(f"{stopped.name[:-DIVISION_DIGITS]}0000"))
    folder = RunFolder(tmp_path, stopped.name)
    adopt_unfinished(folder, 1)
    assert other.exists()  # One process began it, with another number of threads.
    at_work = RunFolder(tmp_path, other.name)
    adopt_unfinished(folder, 2)
    assert other.exists()
    at_work.delete()
    adopt_unfinished(folder, 2)
    assert not other.exists()
    assert (folder.work / TRAINING_STATE).exists()
    folder.delete()
    assert not tmp_path.exists()  # Nothing else was in it.


def test_stored_predictions_are_not_generated_again(
    finished_run: Any, tmp_path: Path, attempt: Callable[..., Stopper]
) -> None:
    first = attempt(4, "evaluate")
    (folder,) = tmp_path.iterdir()
    stopped = read_report(folder)
    assert stopped.failure
    assert (stopped.status, stopped.failure.phase) == ("interrupted", "evaluate")
    assert stopped.decoding is None
    second = attempt(0, "evaluate")
    # The first step of the second attempt counts the stored predictions.
    assert (first.steps, second.steps) == ([2, 4], [4, 6])
    report = read_report(folder)
    assert (report.status, [r.phase for r in report.resumed]) == ("ok", ["evaluate"])
    uninterrupted = finished_run.folder
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in uninterrupted.iterdir()
    )
    assert (folder / "predictions.jsonl").read_bytes() == (
        uninterrupted / "predictions.jsonl"
    ).read_bytes()
    assert report.quality == read_report(uninterrupted).quality


def test_equal_runs_have_one_id_however_their_specs_are_written(
    finished_run: Any, tmp_path: Path
) -> None:
    spec = resolve(read_toml(finished_run.folder / "spec.toml"), "paper")
    inputs = read_inputs(spec, installed())

    def run_id(processes: int = 1, **changes: Any) -> str:
        other = spec.model_copy(update=changes)
        kind = installed().backbones.find(other.backbone).load()
        return identity(
            resolve_run(other, kind(other.backbone), inputs.run.recipe),
            inputs.task,
            changes.get("sha256", inputs.data.sha256),
            installed(),
            processes,
        )

    assert run_id() == finished_run.folder.name
    moved = tmp_path / Path(spec.backbone).name
    moved.symlink_to(spec.backbone)
    same: list[dict[str, Any]] = [
        {"recipe": "lprun + lora_ff"},
        {"preset": "quick"},
        {"device": "auto"},
    ]
    assert {run_id(backbone=str(moved)), *(run_id(**s) for s in same)} == {run_id()}
    moved.unlink()
    moved.mkdir()
    for file in Path(spec.backbone).iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "dropout_rate": 0.2}))
    assert len({run_id(), run_id(processes=2)}) == 2
    assert run_id(processes=2)[:-DIVISION_DIGITS] == run_id()[:-DIVISION_DIGITS]
    others: list[dict[str, Any]] = [
        {"backbone": str(moved)},
        {"sha256": "0" * 64},
        {"seed": 1},
        {"train": spec.train.model_copy(update={"precision": "bfloat16"})},
    ]
    work = [name[:-DIVISION_DIGITS] for name in (run_id(), *(run_id(**o) for o in others))]
    assert len(set(work)) == 5
