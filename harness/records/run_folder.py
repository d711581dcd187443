"""Folder of a run: one process writes it under a hidden name and moves it into place at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness.errors import BusyError, HarnessError, first_line
from harness.records.atomic import write_text
from harness.records.collector import without_collector
from harness.records.report import SCHEMA_VERSION, Report
from harness.records.walk import walk

REPORT = "report.json"
SPEC = "spec.toml"
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"
"""The lines of predictions without texts: ids and scores. It stands in for a missing file of
predictions, so that runs can be compared where their texts are not kept."""
PROFILE = "profile.json"
"""A profile in a results folder, whose speed and memory stand in for what runs did not measure."""
HISTORY = "history.jsonl"
PROGRESS = "progress.json"
TRAINING_STATE = "snapshot.safetensors"
PARTIAL_PREDICTIONS = "predictions.partial.jsonl"


def run_id(backbone: str, recipe: str, task: str, seed: int, digest: str) -> str:
    """Return the name of a run's folder: readable, and unique because of the digest."""
    text = f"{backbone}-{recipe}-{task}-s{seed}-{digest}"
    # Never hidden: a backbone in the folder "." must not hide its runs from ``find_runs``.
    return re.sub(r"[^\w.+=-]+", "-", text).lstrip(".-")


class RunFolder:
    """Folder that a run writes; reports read only folders that ``finish`` moved into place.

    The process that writes it holds a lock, which the system releases if the process dies.

    Args:
        results: the folder of all runs; created if it does not exist.
        run: id of the run.

    Raises:
        BusyError: another process holds the lock.
        HarnessError: the folder cannot be written.
    """

    def __init__(self, results: Path, run: str) -> None:
        self.final = results / run
        self.work = results / f".{run}.partial"
        # Not bound to a thread: what opens the folder need not be what closes it.
        self._lock = FileLock(results / f".{run}.lock", thread_local=False)
        try:
            results.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self.work.mkdir(exist_ok=True)
        except OSError as error:
            raise HarnessError(
                f"The results folder {str(results)!r} cannot be written: {error.strerror}.",
                "Name another one with --out FOLDER",
            ) from error

    def resume(self) -> Report | None:
        """Resume an earlier attempt that was stopped.

        Returns:
            The report of that attempt so far, and ``work`` has its files; None if there is no such
            attempt, and ``work`` is empty.
        """
        stopped = (self.final / PROGRESS).exists() and not is_done(self.final)
        if stopped and not (self.work / PROGRESS).exists():
            shutil.rmtree(self.work)
            self.final.rename(self.work)
        try:
            return Report.model_validate_json((self.work / PROGRESS).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            shutil.rmtree(self.work)
            self.work.mkdir()
            return None

    @property
    def has_history(self) -> bool:
        """Return whether an optimizer step was taken."""
        history = self.work / HISTORY
        return history.exists() and history.stat().st_size > 0

    def save(self, report: Report) -> None:
        """Save the report so far, for ``resume``."""
        write_text(self.work / PROGRESS, report.model_dump_json(indent=2) + "\n")

    def delete(self) -> None:
        """Delete the folder, and the results folder if that is empty then."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.release()
        with contextlib.suppress(OSError):
            self.work.parent.rmdir()

    def finish(self, report: Report) -> Path:
        """Write the report, move the folder into place and release it; return its path.

        An earlier result of the same run is replaced, but a failure never replaces a good one. The
        files that only ``resume`` needs are deleted if the run ended well.
        """
        write_text(self.work / REPORT, report.model_dump_json(indent=2) + "\n")
        if report.status != "ok" and is_done(self.final):
            self.release()
            return self.work
        replaced = self.final.with_name(f".{self.final.name}.replaced")
        if self.final.exists():
            self.final.rename(replaced)
        self.work.rename(self.final)
        shutil.rmtree(replaced, ignore_errors=True)
        if report.status == "ok":
            # Only now: if the process is killed before this, the run can still resume from them.
            self.remove_progress()
        self.release()
        return self.final

    def remove_progress(self) -> None:
        """Delete the files that only ``resume`` needs from a run that ended well."""
        for name in (TRAINING_STATE, PARTIAL_PREDICTIONS, PROGRESS):
            (self.final / name).unlink(missing_ok=True)

    def release(self) -> None:
        """Release the folder, so that other processes can write it."""
        if self._lock.is_locked:
            # While the lock is held: a process that waits for this file then finds it gone.
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _acquire(self) -> None:
        path = Path(self._lock.lock_file)
        try:
            # With a timeout: ``remove_stale_locks`` holds a lock for a moment.
            self._lock.acquire(timeout=0.2, poll_interval=0.02)
        except Timeout as error:
            owner = path.read_text("utf-8") if path.exists() else ""
            raise BusyError(
                f"Another process{f' ({owner})' if owner else ''} is at work on the run "
                f"{self.final.name!r}.",
                "Wait for it, or end it: what it has done is kept.",
            ) from error
        path.write_text(f"{os.getpid()} on {socket.gethostname()}", "utf-8")


@contextlib.contextmanager
def lock(results: Path, run: str) -> Iterator[None]:
    """Hold a run for a sweep, on whatever machine its process is.

    Raises:
        BusyError: another sweep holds it.
    """
    results.mkdir(parents=True, exist_ok=True)
    path = results / f".{run}.claim"
    try:
        with FileLock(path, timeout=0, thread_local=False):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout as error:
        raise BusyError(f"Another sweep is at work on the run {run!r}.", "Wait for it.") from error


def wait_for(results: Path, run: str) -> None:
    """Sleep until neither a sweep nor a process of a run holds it."""
    for kind in ("claim", "lock"):
        path = results / f".{run}.{kind}"
        if path.exists():
            with FileLock(path, poll_interval=1):
                path.unlink(missing_ok=True)


def remove_stale_locks(results: Path) -> None:
    """Remove the lock files of processes that died; those that are held stay.

    Only the holder of a lock removes its file. A process that was waiting for the file gets a new
    one, because filelock checks whether the file that it has locked still exists.
    """
    for path in results.glob(".*"):
        if path.suffix in (".claim", ".lock"):
            with contextlib.suppress(Timeout), FileLock(path, timeout=0, thread_local=False):
                path.unlink(missing_ok=True)


def is_done(folder: Path) -> bool:
    """Return whether a folder holds a run that ended well."""
    try:
        return read_report(folder).status == "ok"
    except HarnessError:
        return False


def read_report(folder: Path) -> Report:
    """Read the report of a run's folder.

    Raises:
        HarnessError: there is none, or it does not have this version's schema.
    """
    path = folder / REPORT
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise HarnessError(
            f"There is no run in {str(folder)!r}: it has no {REPORT}.",
            "Name a folder that `harness run` wrote.",
        ) from error
    except (OSError, ValidationError) as error:
        raise HarnessError(
            f"{str(path)!r} is not a report of schema version {SCHEMA_VERSION}: "
            f"{first_line(error)}.",
            "Run it again with this version of the harness.",
        ) from error


def find_runs(
    results: Path, on_unreadable: Callable[[HarnessError], None] = lambda _: None
) -> Iterator[Path]:
    """Yield the folders of finished runs in a results folder, at any depth, by name.

    Args:
        results: the folder of all runs, or a run itself.
        on_unreadable: called with an error for each folder that cannot be listed.

    Raises:
        HarnessError: there is no such folder, or it is too large to be a results folder.
    """
    if not results.is_dir():
        raise HarnessError(
            f"There is no results folder {str(results)!r}.",
            "Make a run first: harness run",
        )
    yield from walk(results, REPORT, on_unreadable)


class StoredRun(NamedTuple):
    """A finished run.

    Attributes:
        folder: holds the report, the predictions and the trained weights.
        report: what the run measured.
        name: the folder, relative to the results folder; empty where that is not known.
    """

    folder: Path
    report: Report
    name: str = ""

    def _repr_html_(self) -> str:
        from harness.records.display import report_html

        return f"{report_html(self.report)}<small>{escape(str(self.folder))}</small>"


def read_runs(
    results: Path, on_progress: Callable[[], None] = lambda: None
) -> tuple[list[StoredRun], list[HarnessError]]:
    """Read all finished runs of a folder; also return an error for each that cannot be read.

    Args:
        results: the folder of all runs.
        on_progress: called after each run.

    Raises:
        HarnessError: there is no such folder.
    """
    runs: list[StoredRun] = []
    skipped: list[HarnessError] = []
    with without_collector():
        for folder in find_runs(results, skipped.append):
            try:
                name = folder.relative_to(results).as_posix()
                runs.append(StoredRun(folder, read_report(folder), name))
            except HarnessError as error:
                skipped.append(error)
            on_progress()
    return runs, skipped
