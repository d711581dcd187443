"""Runs followed by their events and the states of their jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.records.report import Report
from harness.records.run_folder import RunFolder
from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, Job, WorkerExit
from harness.sweeps.slurm.follower import GONE, Follower
from harness.sweeps.slurm.job_array import EventFile, JobArray, read_arrays
from harness.sweeps.sweep import crash

PHASE = {"event": "phase", "phase": "train", "steps": 3}
GOOD_END = {"code": 0, "stopped": None, "stderr_tail": "", "out_of_memory": False}


@pytest.fixture
def array(tmp_path: Path) -> JobArray:
    jobs = [
        Job(spec=RunSpec(seed=seed, recipe="full"), id=f"run-{seed}", results=tmp_path)
        for seed in range(2)
    ]
    array = JobArray.create(tmp_path, jobs, None)
    array.save_id("12")
    return array


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
def follower(array: JobArray, seen: list[Event]) -> Follower:
    return Follower(array, 1, seen.append)


def write(array: JobArray, *events: Event) -> None:
    with array.events(1).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def finished(status: str, **more: Any) -> Event:
    return {"event": "finished", "status": status, "message": "why", **more}


def ended(stopped: str | None = None, **how: Any) -> Event:
    return {"event": "exit", **GOOD_END, "stopped": stopped, **how}


def test_an_array_is_read_as_it_was_written(array: JobArray, tmp_path: Path) -> None:
    (read,) = read_arrays(tmp_path)
    assert read.record == array.record
    assert read.record.job_id == "12"
    assert [read.job(index).spec.seed for index in range(2)] == [0, 1]
    assert read.task_id(1) == "12_1"


def test_half_a_line_waits_for_its_end_and_a_broken_one_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    assert list(file.read()) == []
    path.write_text('{"event": "step", "step": 1}\n{"event": "st')
    assert [event["step"] for event in file.read()] == [1]
    with path.open("a") as more:  # The next process begins a new line.
        more.write('\n{"event": "step", "step": 2}\n[]\n{}\n')
    assert [event["step"] for event in file.read()] == [2]


def test_a_run_that_is_requeued_ends_only_with_its_last_start(
    array: JobArray, follower: Follower, seen: list[Event]
) -> None:
    assert follower.read("PENDING") is None
    write(array, {"event": "job", "restarts": 0}, PHASE)
    assert follower.read("RUNNING") is None
    write(array, finished("interrupted", folder="x"), ended("SIGTERM"))
    assert follower.read("COMPLETING") is None
    assert follower.read("PENDING") is None
    write(array, {"event": "job", "restarts": 1}, PHASE, finished("ok", folder="x"), ended())
    worker_exit = follower.read("COMPLETED")
    assert worker_exit
    assert worker_exit.code == 0
    assert [event["event"] for event in seen] == [
        "queued",
        "phase",
        "requeued",
        "phase",
        "finished",
    ]
    assert seen[-1]["status"] == "ok"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("CANCELLED", "interrupted"),
        ("PREEMPTED", "interrupted"),
        ("TIMEOUT", "timeout"),
        ("OUT_OF_MEMORY", "oom"),
        ("NODE_FAIL", "error"),
        ("FAILED", "error"),
        (GONE, "error"),
    ],
)
def test_the_last_state_of_a_job_that_left_no_result_is_the_runs_status(
    array: JobArray, follower: Follower, state: str, status: str
) -> None:
    write(array, {"event": "job", "restarts": 0}, PHASE)
    assert follower.read("RUNNING") is None
    # The last events may still be on their way over a shared folder.
    reads = [follower.read(state) for _ in range(20)]
    worker_exit = next(filter(None, reads))
    assert reads[0] is None
    found, message = crash(worker_exit, None)
    assert found == status
    assert message.endswith(f"(Slurm job 12_1, log: {array.folder}/12_1_0_log.err)")


def test_a_job_that_is_cancelled_while_it_waits_is_not_waited_for(
    array: JobArray, follower: Follower
) -> None:
    assert follower.read("PENDING") is None
    # Slurm keeps no record of it.
    worker_exit = follower.read(GONE)
    assert worker_exit
    assert crash(worker_exit, None)[0] == "interrupted"


def test_the_message_of_a_cancelled_run_that_could_report_has_its_job(
    array: JobArray, follower: Follower, seen: list[Event]
) -> None:
    interrupted = finished("interrupted", folder="x")
    write(array, {"event": "job", "restarts": 0}, interrupted, ended("SIGTERM"))
    assert follower.read("CANCELLED")
    assert seen[-1]["message"].startswith("The job was cancelled. (Slurm job 12_1, log: ")


def test_the_warning_before_the_limit_ends_a_run_as_a_timeout(
    array: JobArray, follower: Follower
) -> None:
    write(array, {"event": "job", "restarts": 0}, PHASE, ended("SIGUSR2", code=-12))
    worker_exit = follower.read("RUNNING")
    assert worker_exit
    assert crash(worker_exit, None)[0] == "timeout"


def test_a_worker_that_crashed_has_its_last_line_its_job_and_its_log(
    array: JobArray, follower: Follower
) -> None:
    write(array, {"event": "job", "restarts": 0}, PHASE, ended(code=7, stderr_tail="Boom\n"))
    worker_exit = follower.read("RUNNING")
    assert worker_exit
    status, message = crash(worker_exit, None)
    assert status == "error"
    assert message.startswith("The process ended as 7: Boom (Slurm job 12_1, log: ")


def test_a_worker_that_ran_out_of_memory_is_out_of_memory(
    array: JobArray, follower: Follower
) -> None:
    write(array, {"event": "job", "restarts": 0}, PHASE, ended(code=-9, out_of_memory=True))
    worker_exit = follower.read("RUNNING")
    assert isinstance(worker_exit, WorkerExit)
    assert crash(worker_exit, None)[0] == "oom"


def test_a_run_is_done_as_long_as_its_result_is_there(
    array: JobArray, tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    folder = RunFolder(tmp_path, "on-a-gpu").finish(make_report(id="on-a-gpu"))
    write(array, {"event": "job", "restarts": 0}, finished("ok", folder=str(folder)), ended())

    def is_done() -> bool:
        follower = Follower(array, 1, lambda _: None)
        assert follower.read(None)
        return follower.done

    assert is_done()
    folder.rename(tmp_path / "moved")
    assert not is_done()
