"""Runs of a sweep in several processes, on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness import HarnessError
from harness.api.options import Options
from harness.api.plugins import installed
from harness.records.run_folder import read_report
from harness.running.launch import GroupExit
from harness.running.supervision import GroupFailure
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.sweeps.executor import (
    Event,
    Local,
    LocalOptions,
    ProcessExecutor,
    require_one_gpu_each,
)
from harness.sweeps.group import _conclude
from harness.sweeps.preview import plan_cells
from harness.sweeps.sweep import Sweep, SweepCell

FILES = ("predictions.jsonl", "history.jsonl", "weights.safetensors")


def test_a_run_takes_as_many_slots_as_it_has_processes() -> None:
    slots = []
    for jobs in (1, 2, 5):
        local = Local(LocalOptions(jobs=jobs))
        local.use_processes(2)
        slots.append(local.slots)
    assert slots == [1, 1, 2]


def test_an_executor_that_starts_single_processes_refuses_several() -> None:
    class Plain(ProcessExecutor[Options]):
        slots = 1

    with pytest.raises(HarnessError, match="Plain starts runs of one process only") as raised:
        Plain(Options()).use_processes(2)
    assert "--nproc" in (raised.value.hint or "")


@pytest.mark.parametrize(("gpus", "valid"), [(0, True), (1, True), (2, False), (0.5, False)])
def test_each_process_has_one_gpu_or_none(gpus: float, valid: bool) -> None:
    if valid:
        require_one_gpu_each(gpus, 4)
        return
    with pytest.raises(HarnessError, match=f"gpus={gpus:g} would be for each of 4 processes"):
        require_one_gpu_each(gpus, 4)


@pytest.mark.parametrize(
    ("ended", "expected", "code"),
    [
        (GroupExit(None, "run"), None, 0),
        # The first process has reported.
        (GroupExit(GroupFailure(0, 1), "run"), None, 1),
        (GroupExit(GroupFailure(1, -9), "run"), None, 137),
        # It could not, since the run had no folder yet.
        (GroupExit(GroupFailure(1, -9)), ("error", "Process 1 was killed by SIGKILL."), 137),
        (
            GroupExit(GroupFailure(1, -9, out_of_memory=True)),
            ("oom", "Process 1 was killed by SIGKILL, because memory ran out."),
            137,
        ),
        (
            GroupExit(GroupFailure(0, -14, stopped=True)),
            ("timeout", "It reached its time limit."),
            142,
        ),
    ],
)
def test_the_worker_says_how_a_run_ended_if_the_first_process_could_not(
    ended: GroupExit, expected: tuple[str, str] | None, code: int
) -> None:
    events: list[Event] = []
    assert _conclude(ended, events.append) == code
    said = [(event["status"], event["message"]) for event in events]
    assert said == ([expected] if expected else [])


def spec_of(folder: Path) -> RunSpec:
    return resolve(read_toml(folder / "spec.toml"), "paper")


def same(folder: Path, other: Path) -> None:
    assert folder.name == other.name
    for name in FILES:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def sweep(run: list[str], results: Path, *words: str) -> subprocess.Popen[str]:
    """Start a sweep of runs in two processes."""
    command = [sys.executable, "-m", "harness", "sweep", *run[1:], "--nproc", "2", "--yes"]
    return subprocess.Popen(
        [*command, "--out", str(results), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_runs_are_those_of_harness_run(
    double_run: Path, unprobed_run: list[str], tmp_path: Path
) -> None:
    process = sweep(unprobed_run, tmp_path, "--compressor", "lora_ff+lprun,lprun")
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert "GiB: peak memory of training, of each of 2 processes, estimated" in stderr
    for recipe in ("lora_ff+lprun", "lprun"):
        for phase in ("load", "train", "evaluate", "ok"):
            assert f"tiny-t5 x {recipe} on notes.jsonl, seed 0: {phase}\n" in stderr
    assert "2 of 2 runs are done." in stderr
    assert [path.name for path in tmp_path.glob(".*")] == []
    same(tmp_path / double_run.name, double_run)
    for folder in tmp_path.iterdir():
        report = read_report(folder)
        assert report.training
        assert report.training.processes == 2


@pytest.mark.slow
def test_a_run_by_harness_run_with_as_many_processes_is_done(
    double_run: Path, unprobed_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = shutil.copytree(double_run.parent, tmp_path / "results")
    process = sweep(unprobed_run, results, "--compressor", "lora_ff+lprun")
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert "1 runs, 1 of them done." in stderr
    # Of one process, of three, or with other threads it is another run.
    spec, name = spec_of(double_run), double_run.name
    for threads, processes, done in [("1", 1, False), ("1", 2, True), ("1", 3, False)]:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        (plan,) = plan_cells([spec], installed(), results, processes)
        assert plan.cell.id[:-4] == name[:-4]
        assert plan.cell.done == done


def member(rank: int) -> psutil.Process:
    """Return a process of the group that a worker of this process has started."""
    for process in psutil.Process().children(recursive=True):
        try:
            if process.environ().get("RANK") == str(rank) and "harness.sweeps.worker" in (
                process.cmdline()
            ):
                return process
        except psutil.NoSuchProcess:
            continue
    raise AssertionError(f"there is no process {rank}")


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_process_that_is_killed_ends_the_run_or_starts_it_again(
    double_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = spec_of(double_run)
    events: list[Event] = []
    group: list[psutil.Process] = []

    def on_event(cell: SweepCell, event: Event) -> None:
        events.append(event)
        if event == {"event": "step", "step": 5} and not group:
            group.extend(map(member, (0, 1)))
            group[1].kill()

    runner = Sweep(
        tmp_path,
        Local(LocalOptions()),
        on_event,
        save_state_seconds=0,
        processes=2,
        max_restarts=restarts,
    )
    cell = SweepCell(spec, double_run.name, spec.recipe, 6, done=False)
    (outcome,) = runner.run([cell])
    assert group
    assert psutil.wait_procs(group, timeout=10)[1] == []
    (folder,) = tmp_path.iterdir()
    report = read_report(folder)
    message = "Process 1 was killed by SIGKILL."
    restarted = [event["message"] for event in events if event["event"] == "restarted"]
    if restarts:
        assert outcome.status == "ok", outcome.message
        assert restarted == [
            f"{message} Restart 1 of 1: the run resumes from its last saved state."
        ]
        assert [resumption.phase for resumption in report.resumed] == ["train"]
        same(folder, double_run)
        return
    assert restarted == []
    assert (outcome.status, outcome.message) == ("error", message)
    assert report.failure
    assert (report.status, report.failure.phase, report.failure.message) == (
        "error",
        "train",
        message,
    )


def until(ready: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"), [([], "interrupted"), (["--timeout", "45"], "timeout")]
)
def test_ctrl_c_and_a_timeout_end_all_processes_and_leave_a_report(
    unprobed_run: list[str], tmp_path: Path, words: list[str], status: str
) -> None:
    changes = [
        word
        for name in ("max_steps", "epochs", "patience")
        for word in ("--set", f"train.{name}=100000")
    ]
    process = sweep(unprobed_run, tmp_path, "--compressor", "full", *changes, *words)
    if status == "interrupted":
        histories = tmp_path.glob
        until(lambda: any("loss" in p.read_text() for p in histories(".*.partial/history.jsonl")))
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
    else:
        until(lambda: len(psutil.Process(process.pid).children(recursive=True)) >= 3)
        started = psutil.Process(process.pid).children(recursive=True)
    stderr = process.communicate(timeout=600)[1]
    assert process.returncode == (130 if status == "interrupted" else 1), stderr
    assert len(started) >= 3
    assert psutil.wait_procs(started, timeout=10)[1] == []
    (folder,) = tmp_path.glob("[!.]*")
    assert read_report(folder).status == status
    assert list(tmp_path.glob(".*.lock")) == []
