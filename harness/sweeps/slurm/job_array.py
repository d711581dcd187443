"""Job arrays on disk: their jobs, the events of their runs and Slurm's id, beside the results."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.records.atomic import write_text
from harness.sweeps.executor import Event, Job

FOLDER = ".slurm"
"""Folder of all arrays in the results folder."""
_RECORD = "array.json"


class ArrayRecord(BaseModel):
    """Job array of a sweep, as it is stored."""

    name: str
    """Name of its jobs in Slurm; no other array has it."""
    created: str
    """Time at which the array was written, in UTC."""
    runs: list[str]
    """Ids of its runs; the place of a run is its index in the array."""
    logs: Path
    """Folder of its logs."""
    job_id: str | None = None
    """Id that Slurm gave the array; null until it is known."""


class JobArray:
    """Job array: a folder with a file for each run's job and one for each run's events.

    All files are JSON, so that a node executes nothing that it read from the shared folder.

    Args:
        folder: the array's folder.
        record: the content of its record.
    """

    def __init__(self, folder: Path, record: ArrayRecord) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def create(cls, results: Path, jobs: Sequence[Job], logs: Path | None) -> JobArray:
        """Write a new array; Slurm does not know it yet.

        Args:
            results: the folder of all runs.
            jobs: the jobs, in the order of the array.
            logs: the folder of the logs; by default the array's own.
        """
        name = f"harness-{uuid.uuid4().hex[:12]}"
        folder = results / FOLDER / name
        for needed in (logs or folder, folder):
            needed.mkdir(parents=True, exist_ok=True)
        record = ArrayRecord(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
            runs=[job.id for job in jobs],
            logs=(logs or folder).resolve(),
        )
        array = cls(folder, record)
        for index, job in enumerate(jobs):
            text = job.model_dump_json(indent=2, exclude={"plugin_files"})
            write_text(array._job(index), f"{text}\n")
        array._save()
        return array

    @classmethod
    def read(cls, folder: Path) -> JobArray | None:
        """Read the array of a folder; None if the folder holds none."""
        try:
            record = ArrayRecord.model_validate_json((folder / _RECORD).read_bytes())
        except (OSError, ValidationError):
            return None
        return cls(folder, record)

    def save_id(self, job_id: str | None) -> None:
        """Store the id that Slurm gave the array; None stands for an unknown one."""
        self.record = self.record.model_copy(update={"job_id": job_id})
        self._save()

    def delete(self) -> None:
        """Delete the array, which Slurm does not have."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def job(self, index: int) -> Job:
        """Read the job of a run."""
        return Job.model_validate_json(self._job(index).read_bytes())

    def events(self, index: int) -> Path:
        """Return the file of a run's events."""
        return self.folder / f"events-{index}.jsonl"

    def task_id(self, index: int) -> str:
        """Return Slurm's id of a run's job."""
        return f"{self.record.job_id}_{index}"

    def log(self, index: int) -> Path:
        """Return the file of a run's standard error, as submitit names it."""
        return self.record.logs / f"{self.task_id(index)}_0_log.err"

    def _job(self, index: int) -> Path:
        return self.folder / f"job-{index}.json"

    def _save(self) -> None:
        write_text(self.folder / _RECORD, self.record.model_dump_json(indent=2) + "\n")


def read_arrays(results: Path) -> list[JobArray]:
    """Return the arrays of a results folder, the oldest first."""
    arrays = filter(None, map(JobArray.read, (results / FOLDER).glob("*")))
    return sorted(arrays, key=lambda array: array.record.created)


class EventFile:
    """Events of a run, read while they are written.

    Args:
        path: the file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Event]:
        """Yield the events since the last call; a line that is not complete waits for its end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            # A process that was killed may have left half a line.
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event
