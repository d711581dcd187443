"""The folder of a run: written aside, moved into place when it is whole."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from harness.errors import HarnessError
from harness.reporting.report import SCHEMA_VERSION, Report
from harness.reporting.writing import write_text

REPORT = "report.json"
SPEC = "spec.toml"
PREDICTIONS = "predictions.jsonl"
HISTORY = "history.jsonl"


def run_id(backbone: str, recipe: str, task: str, seed: int, digest: str) -> str:
    """Return the name of a run's folder: readable, and unique by the digest."""
    text = f"{backbone}-{recipe}-{task}-s{seed}-{digest}"
    # Never hidden: a backbone in the folder "." must not hide its runs from ``find_runs``.
    return re.sub(r"[^\w.+=-]+", "-", text).lstrip(".-")


class RunFolder:
    """Where a run writes; what a later report reads is only what ``finish`` moved into place.

    Args:
        results: the folder of all runs; made if need be.
        run: the run's id.

    Raises:
        HarnessError: the folder cannot be written.
    """

    def __init__(self, results: Path, run: str) -> None:
        self.final = results / run
        self.work = results / f".{run}.partial"
        try:
            if self.work.exists():
                shutil.rmtree(self.work)
            self.work.mkdir(parents=True)
        except OSError as error:
            raise HarnessError(
                f"The results folder {str(results)!r} cannot be written: {error.strerror}.",
                "Name another one with --out FOLDER",
            ) from error

    def discard(self) -> None:
        """Leave nothing behind, nor a results folder that holds nothing."""
        shutil.rmtree(self.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.work.parent.rmdir()

    def finish(self, report: Report) -> Path:
        """Add the report and move the folder into place; return where it is.

        An earlier result of the same run is replaced, but never a good one by a failure.
        """
        write_text(self.work / REPORT, report.model_dump_json(indent=2) + "\n")
        if self.final.exists():
            if report.status != "ok" and _is_ok(self.final):
                return self.work
            shutil.rmtree(self.final)
        self.work.rename(self.final)
        return self.final


def read_report(folder: Path) -> Report:
    """Read the report of a run's folder.

    Raises:
        HarnessError: there is none, or it is not of this version's form.
    """
    path = folder / REPORT
    try:
        return Report.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise HarnessError(
            f"There is no run in {str(folder)!r}: it has no {REPORT}.",
            "Name a folder that `harness run` wrote.",
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise HarnessError(
            f"{str(path)!r} is not a report of schema version {SCHEMA_VERSION}: "
            f"{str(error).partition(chr(10))[0]}.",
            "Run it again with this version of the harness.",
        ) from error


def find_runs(results: Path) -> Iterator[Path]:
    """Yield the folders of finished runs in a results folder, by name.

    Raises:
        HarnessError: there is no such folder.
    """
    if not results.is_dir():
        raise HarnessError(
            f"There is no results folder {str(results)!r}.",
            "Make a run first: harness run",
        )
    for folder in sorted(results.iterdir()):
        if not folder.name.startswith(".") and (folder / REPORT).is_file():
            yield folder


class StoredRun(NamedTuple):
    """A finished run and where it is."""

    folder: Path
    report: Report


def read_runs(results: Path) -> tuple[list[StoredRun], list[HarnessError]]:
    """Read all finished runs of a folder, and say which could not be read.

    Raises:
        HarnessError: there is no such folder.
    """
    runs, skipped = [], []
    for folder in find_runs(results):
        try:
            runs.append(StoredRun(folder, read_report(folder)))
        except HarnessError as error:
            skipped.append(error)
    return runs, skipped


def _is_ok(folder: Path) -> bool:
    try:
        return read_report(folder).status == "ok"
    except HarnessError:
        return False
