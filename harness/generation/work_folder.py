"""Work folder: the partial output beside the output, from which a killed command resumes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from harness.errors import BusyError, HarnessError
from harness.evaluation.partial_predictions import PartialPredictions
from harness.generation.progress import Progress, read_progress
from harness.records.atomic import write_text

_PROGRESS, _ERRORS, _ROWS, _LOCK, _WHOLE = "progress.json", "errors.jsonl", "rows", "lock", "whole"


def errors_file(out: Path) -> Path:
    """Return the file of bad records that belongs to an output."""
    return out.with_name(f"{out.name}.errors.jsonl")


class WorkFolder:
    """The hidden folder of a partial output. A context manager that holds a lock.

    Args:
        out: the output.
        overwrite: whether to remove an output and partial output of before.

    Raises:
        HarnessError: the output exists already, or its folder does not.
        BusyError: another process writes this output.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.partial")
        self._overwrite = overwrite
        _check(out, overwrite=overwrite)

    def __enter__(self) -> Self:
        self.path.mkdir(exist_ok=True)
        self._lock = FileLock(self.path / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BusyError(
                f"Another process writes {str(self.out)!r}.", "Wait for it, or end it."
            ) from error
        try:
            _check(self.out, overwrite=self._overwrite)
        except HarnessError:  # Finished since the folder was made.
            self.remove()
            raise
        if self._overwrite:
            self._clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self.path.is_dir() and not (self.path / _PROGRESS).exists():
            self.remove()  # Nothing was done.

    def _clear(self) -> None:
        # The record first: a folder without it is removed as a whole.
        for path in (self.path / _PROGRESS, self.out, errors_file(self.out)):
            path.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    @property
    def rows(self) -> Path:
        """The partial output: a file or folder."""
        return self.path / _ROWS

    def load(self, identity: Mapping[str, str], batch_tokens: int) -> Progress:
        """Return the progress of a killed command, or the beginning.

        Args:
            identity: everything that can change the output.
            batch_tokens: token budget of a batch.

        Raises:
            HarnessError: the partial output was made with other settings.
        """
        path = self.path / _PROGRESS
        if not path.exists():
            self._clear()
            return Progress(identity=dict(identity), batch_tokens=batch_tokens)
        progress = read_progress(path)
        progress.require_identity(self.out, identity)
        return progress

    def save(self, progress: Progress) -> None:
        """Replace the record of the progress."""
        write_text(self.path / _PROGRESS, progress.model_dump_json(indent=1) + "\n")

    def window(self, sha256: str) -> PartialPredictions:
        """Return the predictions so far of a window.

        Args:
            sha256: hash of the input up to the end of the window.
        """
        return PartialPredictions(self.path / f"window-{sha256}.jsonl")

    def remove_window(self, sha256: str) -> None:
        """Remove the predictions of a window that is done."""
        (self.path / f"window-{sha256}.jsonl").unlink(missing_ok=True)

    def add_errors(self, errors: Sequence[tuple[int, str]]) -> int:
        """Append (line, reason) of bad records to the file of errors; return its size."""
        with (self.path / _ERRORS).open("a", encoding="utf-8") as file:
            for line, reason in errors:
                file.write(json.dumps({"line": line, "reason": reason}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def rewind_errors(self, size: int) -> None:
        """Cut the file of errors to a size."""
        (self.path / _ERRORS).touch()
        os.truncate(self.path / _ERRORS, size)

    def whole(self) -> Path:
        """Return the path for the whole output, on the same disk; nothing is there."""
        path = self.path / _WHOLE
        path.unlink(missing_ok=True)
        return path

    def publish(self, errors: int) -> None:
        """Move the whole output and the errors into place, and remove the folder."""
        if errors:
            # A copy, so that a command that is killed here can do this again.
            copy = shutil.copyfile(self.path / _ERRORS, self.path / f"{_WHOLE}-{_ERRORS}")
            copy.replace(errors_file(self.out))
        (self.path / _WHOLE).replace(self.out)
        self.remove()

    def remove(self) -> None:
        """Remove the folder."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / _PROGRESS).unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def _check(out: Path, *, overwrite: bool) -> None:
    """Raise an error if an output cannot be written."""
    if not out.parent.is_dir():
        raise HarnessError(f"There is no folder {str(out.parent)!r}.", f"mkdir -p {out.parent}")
    if out.is_dir():
        raise HarnessError(f"{str(out)!r} is a folder.", "Give the name of a file: --out")
    if out.exists() and not overwrite:
        raise HarnessError(
            f"{str(out)!r} exists already.", "Choose another name, or replace it: --overwrite"
        )
