"""Run folders: moved into place when complete; a failure never replaces a good result."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from harness.errors import BusyError
from harness.records.report import Report
from harness.records.run_folder import (
    RunFolder,
    find_runs,
    lock,
    read_report,
    remove_stale_locks,
    run_id,
)

NOBODY = 65534
"""Id of a user who owns no files."""

MakeReport = Callable[..., Report]
FAILED = {"status": "nan", "failure": {"phase": "train", "message": "The loss is nan."}}


@given(st.text(), st.text(), st.text(), st.integers(0, 9))
def test_an_id_is_one_visible_name_with_the_digest(
    backbone: str, recipe: str, task: str, seed: int
) -> None:
    name = run_id(backbone, recipe, task, seed, "0123abcd")
    assert name.endswith(f"s{seed}-0123abcd")
    assert Path(name).name == name
    assert not name.startswith((".", "-"))
    assert not set(name) & set("/\\:*?\"<>| \0\n'$;&()[]{}")


def test_an_id_is_readable() -> None:
    name = run_id("t5-large", "lora_ff:r=8+lprun", "my notes", 3, "0123abcd")
    assert name == "t5-large-lora_ff-r=8+lprun-my-notes-s3-0123abcd"


def test_only_finish_makes_a_run_visible(tmp_path: Path, make_report: MakeReport) -> None:
    folder = RunFolder(tmp_path / "deep" / "results", "a-run")
    (folder.work / "history.jsonl").write_text("{}\n")
    assert list(find_runs(tmp_path / "deep" / "results")) == []
    report = make_report()
    place = folder.finish(report)
    assert place == tmp_path / "deep" / "results" / "a-run"
    assert list(find_runs(place.parent)) == [place]
    assert read_report(place) == report
    assert sorted(path.name for path in place.iterdir()) == ["history.jsonl", "report.json"]
    assert [path.name for path in place.parent.iterdir()] == ["a-run"]


@pytest.mark.parametrize("first", ["ok", "failed", "damaged"])
@pytest.mark.parametrize("second", ["ok", "failed"])
def test_a_failure_never_replaces_a_good_result(
    tmp_path: Path, make_report: MakeReport, first: str, second: str
) -> None:
    def finish(status: str, seconds: float) -> Path:
        folder = RunFolder(tmp_path, "a-run")
        folder.resume()
        (folder.work / f"of-{status}").touch()
        return folder.finish(make_report(**(FAILED if status == "failed" else {}), seconds=seconds))

    place = finish(first, 1)
    if first == "damaged":
        (place / "report.json").write_text('{"status": "ok"')
    again = finish(second, 2)
    kept = read_report(place)
    if (first, second) == ("ok", "failed"):
        assert (kept.status, kept.seconds) == ("ok", 1)
        assert again == tmp_path / ".a-run.partial"
        assert read_report(again).status == "nan"
        assert (place / "of-ok").exists()
    else:
        assert again == place
        assert kept.seconds == 2
        assert [p.name for p in place.iterdir() if p.name != "report.json"] == [f"of-{second}"]
    assert list(find_runs(tmp_path)) == [place]


def test_files_of_an_earlier_attempt_are_deleted_unless_it_can_resume(
    tmp_path: Path, make_report: MakeReport
) -> None:
    (RunFolder(tmp_path, "a-run").work / "weights.safetensors").write_bytes(b"half")
    folder = RunFolder(tmp_path, "a-run")
    assert folder.resume() is None
    assert list(folder.work.iterdir()) == []
    (folder.work / "weights.safetensors").write_bytes(b"whole")
    folder.save(make_report(seconds=7))
    del folder
    folder = RunFolder(tmp_path, "a-run")
    assert folder.resume() == make_report(seconds=7)
    place = folder.finish(make_report())
    assert sorted(p.name for p in place.iterdir()) == ["report.json", "weights.safetensors"]


def test_a_failed_run_is_resumed_and_a_good_one_is_not(
    tmp_path: Path, make_report: MakeReport
) -> None:
    folder = RunFolder(tmp_path, "a-run")
    folder.save(make_report(seconds=5))
    place = folder.finish(make_report(**FAILED))
    assert (place / "progress.json").exists()
    folder = RunFolder(tmp_path, "a-run")
    assert folder.resume() == make_report(seconds=5)
    assert not place.exists()
    folder.finish(make_report())
    # Killed right after it was moved into place, it may still hold what was to be deleted.
    (place / "progress.json").write_text(make_report(seconds=5).model_dump_json())
    folder = RunFolder(tmp_path, "a-run")
    assert folder.resume() is None
    assert place.exists()


def test_one_process_at_a_time(tmp_path: Path, make_report: MakeReport) -> None:
    first = RunFolder(tmp_path, "a-run")
    (first.work / "mine").touch()
    with pytest.raises(BusyError, match=rf"\({os.getpid()} on .+\) is at work on the run 'a-run'"):
        RunFolder(tmp_path, "a-run")
    assert (first.work / "mine").exists()
    RunFolder(tmp_path, "another").delete()
    place = first.finish(make_report())
    RunFolder(tmp_path, "a-run").delete()
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


OWNER = """
import sys, time
from pathlib import Path
from harness.records.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), "a-run")
print("ready", flush=True)
time.sleep(60)
"""


def test_the_folder_of_a_dead_process_can_be_locked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "ready\n"
        with pytest.raises(BusyError, match=rf"\({owner.pid} on "):
            RunFolder(tmp_path, "a-run")
        owner.kill()
    RunFolder(tmp_path, "a-run").delete()
    assert not tmp_path.exists() or list(tmp_path.iterdir()) == []


CLAIMANT = """
import random, sys, time
from pathlib import Path
from harness.errors import BusyError
from harness.records.run_folder import lock, remove_stale_locks
results, mine = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
input()
held = 0
while held < 100:
    try:
        with lock(results, "a-run"):
            inside = results / "inside"
            with inside.open("x") as file:  # Fails if another process holds the lock.
                file.write(mine)
            time.sleep(random.random() / 1000)
            assert inside.read_text() == mine
            inside.unlink()
            held += 1
    except BusyError:
        pass
    remove_stale_locks(results)
"""


def test_one_process_holds_a_lock_while_others_lock_and_remove_stale_ones(tmp_path: Path) -> None:
    start = [sys.executable, "-c", CLAIMANT, str(tmp_path)]
    lockers = [
        subprocess.Popen([*start, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    for locker in lockers:
        assert locker.stdout
        assert locker.stdout.readline() == "ready\n"
    for locker in lockers:
        assert locker.stdin
        print("go", file=locker.stdin, flush=True)
    for locker in lockers:
        locker.communicate()
    assert [locker.returncode for locker in lockers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_only_locks_of_dead_processes_are_removed(tmp_path: Path) -> None:
    for name in (".dead.lock", ".dead.claim", ".dead.partial", "kept.lock"):
        (tmp_path / name).touch()
    folder = RunFolder(tmp_path, "alive")
    with lock(tmp_path, "alive"):
        remove_stale_locks(tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
    kept = {".dead.partial", "kept.lock", ".alive.lock", ".alive.claim", ".alive.partial"}
    assert names == kept
    folder.release()


def test_delete_leaves_nothing(tmp_path: Path, make_report: MakeReport) -> None:
    results = tmp_path / "results"
    folder = RunFolder(results, "a-run")
    (folder.work / "spec.toml").touch()
    folder.delete()
    assert list(tmp_path.iterdir()) == []
    place = RunFolder(results, "good").finish(make_report())
    RunFolder(results, "a-run").delete()
    assert list(results.iterdir()) == [place]


def test_a_folder_that_cannot_be_created_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(HarnessError, match="cannot be written") as raised:
        RunFolder(tmp_path / "results", "a-run")
    assert "--out" in str(raised.value)


@pytest.fixture
def _not_root() -> Iterator[None]:
    """Drop the rights of root, if the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that all may read and only root may write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    yield folder
    folder.rmdir()


@pytest.mark.usefixtures("_not_root")
def test_a_read_only_folder_is_a_users_error(read_only: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be written: Permission denied"):
        RunFolder(read_only, "a-run")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "There is no run in"),
        (b"", "is not a report of schema version"),
        (b'{"id": "x", "status"', "is not a report of schema version"),
        (b"\xff\xfe", "is not a report of schema version"),
        (b"{}", "is not a report of schema version"),
        (b"[]", "is not a report of schema version"),
    ],
)
def test_a_file_that_is_no_report_is_named(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(HarnessError, match=complaint) as raised:
        read_report(tmp_path)
    assert str(tmp_path) in raised.value.message
    assert "\n" not in raised.value.message


def test_runs_are_found_by_name_and_nothing_else_is(
    tmp_path: Path, make_report: MakeReport
) -> None:
    places = [RunFolder(tmp_path, name).finish(make_report()) for name in ("b", "a")]
    RunFolder(tmp_path, "unfinished")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    assert list(find_runs(tmp_path)) == sorted(places)


def test_a_missing_results_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="There is no results folder"):
        list(find_runs(tmp_path / "results"))
