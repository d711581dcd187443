"""A group of processes is started again after a failure, ends together, and leaves one report."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from harness import HarnessError
from harness.interrupts import MAIN_IS_SILENT
from harness.records.run_folder import PROGRESS, RunFolder, read_report
from harness.running.failure import finish_for
from harness.running.launch import GroupExit, require_gpus
from harness.running.supervision import GroupFailure, supervise, thread_share
from harness.spec.run_spec import RunSpec

# Each process counts its starts. In the first ones process 1 fails; process 0 then waits.
SCRIPT = """
import os, sys, time
from pathlib import Path

rank, (folder, failures, how) = int(os.environ["RANK"]), sys.argv[1:]
starts = Path(folder, str(rank))
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
if len(starts.read_text()) <= int(failures):
    if rank == 0:
        time.sleep(60)
    elif how.startswith("-"):
        os.kill(os.getpid(), -int(how))
    sys.exit(int(how))
"""


def start(folder: Path, failures: int, how: int, restarts: int) -> tuple[object, list[str]]:
    """Start two processes; return the last failure and the messages."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    messages: list[str] = []
    words = [str(script), str(folder), str(failures), str(how)]
    failure = supervise(words, 2, restarts, messages.append)
    # The command of a process that has ended and is not yet waited for is None.
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(script) in command] == []
    return failure, messages


def test_processes_are_started_again_after_one_was_killed(tmp_path: Path) -> None:
    failure, messages = start(tmp_path, failures=1, how=-signal.SIGKILL, restarts=2)
    assert failure is None
    (message,) = messages
    assert message.startswith("Process 1 was killed by SIGKILL. Restart 1 of 2: ")
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["xx", "xx"]


def test_a_mistake_of_the_user_is_not_repeated(tmp_path: Path) -> None:
    failure, messages = start(tmp_path, failures=1, how=2, restarts=2)
    assert (failure, messages) == (GroupFailure(rank=1, status=2), [])


def test_a_time_limit_ends_all_processes_and_none_is_started_again(tmp_path: Path) -> None:
    def ring() -> None:
        while not (tmp_path / "0").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGALRM)

    threading.Thread(target=ring).start()
    failure, messages = start(tmp_path, failures=9, how=0, restarts=2)
    assert failure == GroupFailure(0, -signal.SIGALRM, stopped=True)
    assert messages == []


@pytest.mark.parametrize(
    ("failure", "report", "expected"),
    [
        (None, None, 0),
        (GroupFailure(0, 2), None, 2),  # A mistake, which the first process has printed.
        (GroupFailure(0, 77), None, 1),
        (GroupFailure(0, -2, stopped=True), Path("run"), 130),
        (GroupFailure(1, -9), Path("run"), "Process 1 was killed by SIGKILL.*\nReport: run"),
        (GroupFailure(0, MAIN_IS_SILENT), None, "Process 0 did not answer the others"),
    ],
)
def test_the_command_ends_with_a_status_or_an_error(
    failure: GroupFailure | None, report: Path | None, expected: int | str
) -> None:
    ended = GroupExit(failure, "run", report)
    if isinstance(expected, int):
        assert ended.status() == expected
        return
    with pytest.raises(HarnessError, match=expected):
        ended.status()


@pytest.mark.parametrize(
    ("gpus", "processes", "device", "enough"),
    [(2, 4, "auto", False), (2, 2, "auto", True), (2, 4, "cpu", True), (0, 4, "auto", True)],
)
def test_more_processes_than_gpus_are_an_error_before_the_start(
    monkeypatch: pytest.MonkeyPatch, gpus: int, processes: int, device: str, enough: bool
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    if enough:
        require_gpus(processes, device)
        return
    with pytest.raises(
        HarnessError, match=r"4 processes need as many GPUs, and .* has 2"
    ) as raised:
        require_gpus(processes, device)
    assert "--nproc 2" in (raised.value.hint or "")


def test_processes_share_the_cores_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [thread_share(count) for count in (1, 2, 9)] == [None, 3, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert thread_share(2) is None


@pytest.mark.parametrize(
    ("failure", "message", "may_pass"),
    [
        (GroupFailure(3, -6), "Process 3 was killed by SIGABRT.", True),
        (GroupFailure(1, MAIN_IS_SILENT), "Process 0 did not answer the others.", True),
        (GroupFailure(0, 1), "Process 0 ended with status 1.", True),
        (GroupFailure(0, 130), "Process 0 ended with status 130.", False),
        (GroupFailure(0, -15, stopped=True), "The launcher was stopped by SIGTERM.", False),
        (
            GroupFailure(2, -9, out_of_memory=True),
            "Process 2 was killed by SIGKILL, because memory ran out.",
            True,
        ),
        (GroupFailure(0, -signal.SIGALRM, stopped=True), "It reached its time limit.", False),
    ],
)
def test_a_failure_names_its_process(failure: GroupFailure, message: str, may_pass: bool) -> None:
    assert failure.message == message
    assert failure.may_pass == may_pass


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (GroupFailure(0, -9), "error"),
        (GroupFailure(0, -9, out_of_memory=True), "oom"),
        (GroupFailure(0, -15, stopped=True), "interrupted"),
        (GroupFailure(0, -signal.SIGALRM, stopped=True), "timeout"),
        (GroupFailure(0, -signal.SIGUSR2, stopped=True), "timeout"),
    ],
)
def test_the_launcher_writes_the_report_that_a_lost_process_could_not(
    tmp_path: Path, failure: GroupFailure, status: str
) -> None:
    lost = RunFolder(tmp_path, "run")
    lost._lock.release()  # As if its process had died: the lock's file stays.
    place = finish_for(failure, "run", tmp_path, RunSpec())
    report = read_report(place)
    assert report.status == status
    assert report.failure
    assert (report.failure.phase, report.failure.message) == ("probe speed", failure.message)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (place / PROGRESS).exists()
