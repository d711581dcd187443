"""An unfinished run goes on with another number of processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import BusyError
from harness.records.run_folder import PROGRESS, TRAINING_STATE, RunFolder, is_done
from harness.running.identity import DIVISION_DIGITS
from harness.training.state import read_progress


def adopt_unfinished(folder: RunFolder, processes: int) -> None:
    """Move the files of an unfinished run with another number of processes to a run's folder.

    The training state belongs to no number of processes: its examples, weights and optimizer are
    those of one process. Nothing is moved if the run has files of its own, or if the other run has
    no training state yet or is at work.

    Args:
        folder: the folder of the run, which is locked; it gets the files for ``resume``.
        processes: the number of processes of the run.
    """
    if _is_unfinished(folder.work) or _is_unfinished(folder.final):
        return
    results, name = folder.final.parent, folder.final.name
    pattern = name[:-DIVISION_DIGITS] + "?" * DIVISION_DIGITS
    found = {
        path: read_progress(path)
        for path in (*results.glob(f".{pattern}.partial"), *results.glob(pattern))
        if _is_unfinished(path) and (path / TRAINING_STATE).exists()
    }
    for path in sorted(found, key=lambda path: -found[path].step):
        if found[path].processes != processes and _move(path, folder):
            return


def _is_unfinished(path: Path) -> bool:
    return (path / PROGRESS).exists() and not is_done(path)


def _move(path: Path, folder: RunFolder) -> bool:
    """Move the files of another run; return False if a process is at work on it."""
    name = path.name.removeprefix(".").removesuffix(".partial")
    try:
        other = RunFolder(folder.final.parent, name)
    except BusyError:
        return False
    shutil.rmtree(folder.work)
    path.rename(folder.work)
    other.delete()
    return True
