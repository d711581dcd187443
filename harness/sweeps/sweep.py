"""Runs every cell of a sweep; a failure does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.api.plugin_files import PluginFile
from harness.errors import BusyError
from harness.records.report import Failure, Status
from harness.records.run_folder import RunFolder, is_done, lock, remove_stale_locks, wait_for
from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, Executor, Job, WorkerExit


@dataclass(frozen=True)
class SweepCell:
    """One run of a sweep.

    Attributes:
        spec: the spec of the run.
        id: the id that the run has on this machine.
        recipe: the recipe in canonical form.
        steps: the number of planned optimizer steps.
        done: true if the results folder holds the finished run.
        stop_after: interrupt the run there; see ``Job``.
    """

    spec: RunSpec
    id: str
    recipe: str
    steps: int
    done: bool
    stop_after: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Outcome of a cell.

    Attributes:
        cell: the cell.
        status: the status of the run's report.
        message: the reason why the run failed; None if it did not.
        micro_batch: the smaller micro-batch that was needed to fit into memory; None if the spec's
            was used.
    """

    cell: SweepCell
    status: Status
    message: str | None = None
    micro_batch: int | None = None


OnEvent = Callable[[SweepCell, Event], None]


class Sweep:
    """Runs the cells that are not done.

    Args:
        results: the folder of all runs.
        executor: starts the workers.
        on_event: is called with the events of each cell, from several threads.
        timeout: time limit of one run, in seconds.
        on_oom: ``shrink`` runs a cell that ran out of memory again, with smaller micro-batches.
        save_state_seconds: see ``harness.running.run.Run``.
        plugin_files: plugins that are single files, for the workers.
        processes: number of processes of each run.
        max_restarts: number of times that the processes of a run are started again after a loss.
    """

    def __init__(
        self,
        results: Path,
        executor: Executor[Any],
        on_event: OnEvent,
        *,
        timeout: float | None = None,
        on_oom: Literal["fail", "shrink"] = "fail",
        save_state_seconds: float = 300,
        plugin_files: Sequence[PluginFile] = (),
        processes: int = 1,
        max_restarts: int = 0,
    ) -> None:
        self.results = results
        self.executor = executor
        self.on_event = on_event
        self.timeout = timeout
        self.on_oom = on_oom
        self.save_state_seconds = save_state_seconds
        self.plugin_files = list(plugin_files)
        self.processes = processes
        self.max_restarts = max_restarts
        self._stopped = False

    def run(self, cells: Sequence[SweepCell]) -> list[Outcome]:
        """Run all cells; return an outcome for each, in their order.

        A cell that another sweep is running is skipped, and checked again at the end. After an
        interrupt the workers save their states; then the interrupt is raised again.
        """
        outcomes: dict[str, Outcome] = {}
        with ThreadPoolExecutor(self.executor.slots) as pool:
            try:
                waiting = list(cells)
                while waiting:
                    self.executor.expect([cell.id for cell in waiting if not cell.done])
                    for cell, outcome in zip(waiting, pool.map(self._cell, waiting), strict=True):
                        if outcome:
                            outcomes[cell.id] = outcome
                    waiting = [cell for cell in waiting if cell.id not in outcomes]
                    if waiting:
                        wait_for(self.results, waiting[0].id)
            except KeyboardInterrupt:
                self._stopped = True
                self.executor.stop()
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                remove_stale_locks(self.results)
        return [outcomes[cell.id] for cell in cells]

    def _cell(self, cell: SweepCell) -> Outcome | None:
        """Run a cell and return its outcome, or None if another process is running it."""
        if cell.done:
            return Outcome(cell, "ok")
        try:
            with lock(self.results, cell.id):
                return self._until_it_fits(cell)
        except BusyError:
            self.on_event(cell, {"event": "busy"})
            return None

    def _until_it_fits(self, cell: SweepCell) -> Outcome | None:
        if is_done(self.results / cell.id):  # Another sweep finished it meanwhile.
            self.on_event(cell, {"event": "finished", "status": "ok"})
            return Outcome(cell, "ok")
        outcome = self._attempt(cell, None)
        size = cell.spec.train.batch_size
        while outcome and outcome.status == "oom" and self.on_oom == "shrink" and size > 1:
            size = smaller(size)
            self.on_event(cell, {"event": "shrunk", "micro_batch": size})
            outcome = self._attempt(cell, size)
        return outcome

    def _attempt(self, cell: SweepCell, micro_batch: int | None) -> Outcome | None:
        if self._stopped:
            return Outcome(cell, "interrupted", "The sweep was interrupted.")
        last: Event = {}
        phase = "load"

        def on_event(event: Event) -> None:
            nonlocal last, phase
            last = event
            phase = event.get("phase", phase)
            self.on_event(cell, event)

        job = Job(
            spec=cell.spec,
            id=cell.id,
            results=self.results,
            timeout=self.timeout,
            micro_batch=micro_batch,
            save_state_seconds=self.save_state_seconds,
            plugin_files=self.plugin_files,
            stop_after=cell.stop_after,
            processes=self.processes,
            max_restarts=self.max_restarts,
        )
        worker_exit = self.executor.run(job, on_event)
        match last.get("event"):
            case "busy":
                return None
            case "mistake":
                return Outcome(cell, "error", last["message"])
            case "finished" if "folder" in last:
                return Outcome(cell, last["status"], last["message"], micro_batch)
        if self._stopped:
            return Outcome(cell, "interrupted", "The sweep was interrupted.")
        # The worker wrote no report.
        if last.get("event") == "finished":
            status, message = last["status"], last["message"]
        else:
            status, message = crash(worker_exit, self.timeout)
        self._record(cell, status, Failure(phase=phase, message=message))
        self.on_event(cell, {"event": "finished", "status": status, "message": message})
        return Outcome(cell, status, message, micro_batch)

    def _record(self, cell: SweepCell, status: Status, failure: Failure) -> None:
        """Write the report of a run whose process died before it could write one."""
        from harness.running.failure import empty_report

        folder = RunFolder(self.results, cell.id)
        report = folder.resume() or empty_report(cell.id, cell.spec, status, cell.recipe)
        report.status, report.failure = status, failure
        folder.finish(report)


def crash(worker_exit: WorkerExit, timeout: float | None) -> tuple[Status, str]:
    """Return the status and message of a worker that ended without reporting."""
    status, message = _cause(worker_exit, timeout)
    return status, f"{message} ({worker_exit.place})" if worker_exit.place else message


def _cause(worker_exit: WorkerExit, timeout: float | None) -> tuple[Status, str]:
    if worker_exit.status and worker_exit.reason:
        return worker_exit.status, worker_exit.reason
    if worker_exit.code == -9 and worker_exit.out_of_memory:
        return "oom", "The system killed the process because memory ran out."
    if worker_exit.code == -9 and timeout:
        return "timeout", f"It did not end within {timeout:g} seconds and was killed."
    stderr = [line for line in worker_exit.stderr_tail.splitlines() if line.strip()]
    manner = (
        f"was killed by signal {-worker_exit.code}"
        if worker_exit.code < 0
        else f"ended as {worker_exit.code}"
    )
    return "error", f"The process {manner}{f': {stderr[-1]}' if stderr else '.'}"


def smaller(size: int) -> int:
    """Return half a micro-batch, or the largest divisor below it, so that the step stays whole."""
    return next(part for part in range(size // 2, 0, -1) if size % part == 0)
