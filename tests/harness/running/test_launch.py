"""A group of processes is started again after a failure, ends together, and leaves one report."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from harness.interrupts import MAIN_IS_SILENT
from harness.records.run_folder import PROGRESS, RunFolder, read_report
from harness.running.failure import finish_for
from harness.running.launch import GroupFailure, supervise
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
