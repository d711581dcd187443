"""The live view of a sweep's jobs, from any machine that sees the results folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import clock
from harness.errors import HarnessError
from harness.sweeps.executor import Event, WorkerExit
from harness.sweeps.slurm.commands import States, current_states
from harness.sweeps.slurm.follower import ENDS, GONE, Follower
from harness.sweeps.slurm.job_array import JobArray, read_arrays
from harness.sweeps.sweep import OnEvent, Outcome, SweepCell, crash

_READ_SECONDS = 1.0
_ASK_SECONDS = 15.0
"""Seconds between two questions to Slurm about the states of the jobs."""


@dataclass(frozen=True)
class WatchedRun:
    """Run of an array.

    Attributes:
        cell: the run as a cell of its sweep.
        array: the array.
        index: the place of the run in it.
    """

    cell: SweepCell
    array: JobArray
    index: int


def watched_runs(results: Path) -> list[WatchedRun]:
    """Return the runs of the arrays that are not at their end; if all are, those of the last one.

    A run that was submitted several times is returned once, with its last array.

    Args:
        results: the folder of all runs.

    Raises:
        HarnessError: the folder has no jobs of Slurm.
    """
    arrays = [array for array in read_arrays(results) if array.record.job_id]
    if not arrays:
        raise HarnessError(
            f"There are no jobs of Slurm in {str(results)!r}.",
            "Name the results folder of a sweep with --executor slurm: --out FOLDER",
        )
    last = {run: array for array in arrays for run in array.record.runs}
    runs = [
        WatchedRun(_cell(array, index), array, index)
        for array in arrays
        for index, run in enumerate(array.record.runs)
        if last[run] is array
    ]
    open_arrays = {run.array.record.name for run in _still_open(runs)}
    chosen = open_arrays or {arrays[-1].record.name}
    return [run for run in runs if run.array.record.name in chosen]


def watch(runs: Sequence[WatchedRun], on_event: OnEvent) -> list[Outcome]:
    """Follow runs to their ends; return an outcome for each. Nothing is submitted or cancelled.

    Args:
        runs: the runs.
        on_event: is called with the events of each run.
    """
    # Without Slurm's commands a job that was killed looks as if it were at work for ever.
    states = States(_ASK_SECONDS) if shutil.which("squeue") else None
    outcomes: dict[str, Outcome] = {}
    followers = list(_followers(runs, on_event))
    if states:
        for run in runs:
            states.watch(run.array.task_id(run.index))
    while True:
        for run, follower in followers:
            if run.cell.id in outcomes:
                continue
            task = run.array.task_id(run.index)
            ended = follower.read(states.of(task) if states else None)
            if ended:
                outcomes[run.cell.id] = _outcome(run.cell, follower.outcome, ended, on_event)
        if len(outcomes) == len(runs):
            return [outcomes[run.cell.id] for run in runs]
        clock.sleep(_READ_SECONDS)


def _followers(
    runs: Sequence[WatchedRun], on_event: OnEvent
) -> Iterator[tuple[WatchedRun, Follower]]:
    for run in runs:
        yield run, Follower(run.array, run.index, _bound(on_event, run.cell))


def _bound(on_event: OnEvent, cell: SweepCell) -> Callable[[Event], None]:
    return lambda event: on_event(cell, event)


def _outcome(cell: SweepCell, last: Event | None, ended: WorkerExit, on_event: OnEvent) -> Outcome:
    if last and last["event"] == "finished":
        status = ended.status or last["status"]
        reason = ended.reason or last["message"]
        return Outcome(cell, status, f"{reason} ({ended.place})" if status != "ok" else None)
    if last:
        return Outcome(cell, "error", last["message"])
    status, message = crash(ended, None)
    on_event(cell, {"event": "finished", "status": status, "message": message})
    return Outcome(cell, status, message)


def _cell(array: JobArray, index: int) -> SweepCell:
    job = array.job(index)
    return SweepCell(job.spec, job.id, job.spec.recipe, steps=0, done=False)


def _still_open(runs: Sequence[WatchedRun]) -> list[WatchedRun]:
    left = [
        run for run in runs if not Follower(run.array, run.index, lambda _: None).read(state=None)
    ]
    if shutil.which("squeue") is None:
        return left
    states = current_states([run.array.task_id(run.index) for run in left])
    return [run for run in left if states.get(run.array.task_id(run.index), GONE) not in ENDS]
