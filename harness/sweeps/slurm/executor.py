"""Executor for a Slurm cluster: the runs of a sweep are one job array.

Nothing is pickled. submitit writes the batch script and submits it, but what the script starts is a
command of the harness with a JSON file (``harness.sweeps.slurm.commands.submit``). The files of an
array lie beside the results (``harness.sweeps.slurm.job_array``). From them the same sweep finds
its jobs again after it died, and ``harness sweep --watch`` shows them from anywhere.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import clock
from harness.errors import HarnessError
from harness.sweeps.executor import Event, Executor, Job, WorkerExit, require_one_gpu_each
from harness.sweeps.slurm import commands
from harness.sweeps.slurm.follower import ENDS, GONE, Follower
from harness.sweeps.slurm.job_array import JobArray, read_arrays
from harness.sweeps.slurm.options import SlurmOptions

_READ_SECONDS = 1.0
"""Seconds between two looks at a run's events."""
_SILENCE_SECONDS = 2.0
"""Seconds after which runs that were expected but have not come are not waited for."""

Place = tuple[JobArray, int]
"""Place of a run: its array, and its index there."""


@dataclass(eq=False)
class _Ticket:
    """A run that waits for the others of its array."""

    job: Job
    place: Place | None = None
    error: HarnessError | None = None


@dataclass
class _Known:
    """Runs of the results folder that Slurm has or had."""

    live: dict[str, Place] = field(default_factory=dict)
    done: dict[str, Place] = field(default_factory=dict)


class Slurm(Executor[SlurmOptions]):
    """Runs workers as jobs of an array; all nodes must see the results folder.

    A run that Slurm preempts or puts back into the queue resumes from its training state.
    """

    Options = SlurmOptions

    def __init__(self, options: SlurmOptions) -> None:
        super().__init__(options)
        commands.require_slurm()
        if options.setup and not options.setup.is_file():
            raise HarnessError(
                f"There is no setup script {str(options.setup)!r}.", "Name a file: setup=FILE"
            )
        self._states = commands.States(options.poll)
        self._turn = threading.Condition()
        self._tickets: list[_Ticket] = []
        self._order: dict[str, int] = {}
        self._expected = 0
        self._known: _Known | HarnessError | None = None
        self._at_work: set[str] = set()
        self._stopped = False

    def use_processes(self, count: int) -> None:
        """Request the resources of all processes for each job, on one node."""
        require_one_gpu_each(self.options.gpus, count)
        self.processes = count

    @property
    def slots(self) -> int:
        """Number of runs in the queue at once, from the options."""
        return self.options.jobs

    def expect(self, runs: Sequence[str]) -> None:
        """Submit these runs as one array in this order, when all of them have come."""
        with self._turn:
            self._order = {run: place for place, run in enumerate(runs)}
            self._expected = min(len(runs), self.slots)

    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Find the run's job in Slurm or submit one, and follow it to its end."""
        job = job.model_copy(update={"results": job.results.resolve()})
        array, index = self._find(job) or self._submit(job)
        follower = Follower(array, index, on_event)
        with self._working(array.task_id(index)) as task:
            while True:
                state = self._states.of(task)
                ended = follower.read(state)
                if ended:
                    return ended
                if self._stopped and self.options.detach:
                    on_event({"event": "left in the queue"})
                    return WorkerExit(code=130, place=follower.place)
                waits = state == "PENDING" and not self._stopped
                clock.sleep(max(_READ_SECONDS, self.options.poll / 3) if waits else _READ_SECONDS)

    def stop(self) -> None:
        """Cancel the jobs of this sweep, or leave them; submit no more."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
            if not self.options.detach:
                commands.cancel(self._at_work)
                self._states.interval = _READ_SECONDS

    @contextlib.contextmanager
    def _working(self, task: str) -> Iterator[str]:
        with self._turn:
            self._at_work.add(task)
            self._states.watch(task)
            if self._stopped and not self.options.detach:
                commands.cancel([task])
        try:
            yield task
        finally:
            with self._turn:
                self._at_work.discard(task)
                self._states.forget(task)

    def _find(self, job: Job) -> Place | None:
        """Return the place of a job of an earlier sweep that died, so that it is not doubled."""
        with self._turn:
            if isinstance(self._known, HarnessError):  # Slurm is not asked again for each run.
                raise self._known
            if self._known is None:
                try:
                    self._known = _look_up(job.results)
                except HarnessError as error:
                    self._known = error
                    raise
            place = self._known.live.pop(job.id, None) or self._known.done.pop(job.id, None)
            if place:
                self._expected -= 1
                self._turn.notify_all()
            return place

    def _submit(self, job: Job) -> Place:
        """Submit a run together with the others that are expected; return its place."""
        ticket = _Ticket(job)
        with self._turn:
            self._tickets.append(ticket)
            self._turn.notify_all()
            while not (ticket.place or ticket.error):
                if self._stopped:
                    raise HarnessError("The sweep was interrupted before its jobs were submitted.")
                if len(self._tickets) >= self._expected:
                    self._submit_all()
                    continue
                before = len(self._tickets)
                if not self._turn.wait(_SILENCE_SECONDS) and len(self._tickets) == before:
                    self._submit_all()
        if ticket.error:
            raise ticket.error
        assert ticket.place
        return ticket.place

    def _submit_all(self) -> None:
        tickets, self._tickets, self._expected = self._tickets, [], 0
        if not tickets:
            return
        tickets.sort(key=lambda ticket: self._order.get(ticket.job.id, 0))
        try:
            array = self._submit_array([ticket.job for ticket in tickets])
        except HarnessError as error:
            for ticket in tickets:
                ticket.error = error
        else:
            for index, ticket in enumerate(tickets):
                ticket.place = (array, index)
        self._turn.notify_all()

    def _submit_array(self, jobs: Sequence[Job]) -> JobArray:
        try:
            # Stored before it is submitted: if this process dies now, its name finds the array.
            array = JobArray.create(jobs[0].results, jobs, self.options.logs)
        except OSError as error:
            raise HarnessError(
                f"The files of the jobs cannot be written: {error}.",
                "Name another folder with --out FOLDER, or for the logs: logs=FOLDER",
            ) from error
        try:
            parameters = self.options.parameters(self.processes)
            array.save_id(commands.submit(array, parameters, jobs[0].plugin_files))
        except HarnessError:
            array.delete()
            raise
        return array


def _look_up(results: Path) -> _Known:
    """Read the arrays of a results folder: which runs are in Slurm now, and which ended well."""
    known = _Known()
    open_: dict[str, tuple[str, Place]] = {}
    for array in read_arrays(results):
        if array.record.job_id is None:
            found = commands.find_array(array.record.name)
            if found is None:
                continue
            array.save_id(found)
        for index, run in enumerate(array.record.runs):
            follower = Follower(array, index, lambda _: None)
            ended = follower.read(None)
            if ended is None:
                open_[array.task_id(index)] = (run, (array, index))
            elif follower.done:
                known.done[run] = (array, index)
    states = commands.current_states(open_)
    for task, (run, place) in open_.items():
        if states.get(task, GONE) not in ENDS:
            known.live[run] = place
    return known
