"""A run of an array, followed to its end by its events and by the state of its job in Slurm."""

from __future__ import annotations

from collections.abc import Callable

from harness.records.report import Status
from harness.records.run_folder import is_done
from harness.sweeps.executor import Event, WorkerExit
from harness.sweeps.slurm.job_array import EventFile, JobArray

GONE = "GONE"
"""State of a job that Slurm does not know any more."""

ENDS: dict[str, tuple[Status, str]] = {
    "CANCELLED": ("interrupted", "The job was cancelled."),
    "PREEMPTED": (
        "interrupted",
        "The job had to make room, and Slurm did not put it back into the queue.",
    ),
    "TIMEOUT": ("timeout", "The job reached its time limit in Slurm."),
    "DEADLINE": ("timeout", "The job reached its deadline in Slurm."),
    "OUT_OF_MEMORY": ("oom", "Slurm ended the job because it used more memory than it requested."),
    "NODE_FAIL": ("error", "The node of the job failed."),
    "BOOT_FAIL": ("error", "The node of the job did not start."),
    "FAILED": ("error", "The job failed before its worker could report."),
    "REVOKED": ("error", "The job was revoked."),
    "COMPLETED": ("error", "The job ended without a result."),
    GONE: ("error", "Slurm does not know the job any more, and it left no result."),
}
"""Last state of a job in Slurm -> status and message of a run that left no result."""

_OUTCOMES = ("finished", "busy", "mistake")
_LAG = 10
"""Calls for which the last events of an ended job may still be on their way (shared folders)."""


class Follower:
    """Follows one run of an array.

    Args:
        array: the array.
        index: the place of the run in it.
        on_event: is called with the worker's events, and with ``queued`` and ``requeued``.
    """

    def __init__(self, array: JobArray, index: int, on_event: Callable[[Event], None]) -> None:
        self.array = array
        self.index = index
        self.on_event = on_event
        self.outcome: Event | None = None
        """Event by which the worker's last start ended, if it has."""
        self._events = EventFile(array.events(index))
        self._exit: Event | None = None
        self._shown = ""
        self._starts = 0
        self._lag = 0

    @property
    def place(self) -> str:
        """The job's id and log, for messages."""
        return f"Slurm job {self.array.task_id(self.index)}, log: {self.array.log(self.index)}"

    @property
    def done(self) -> bool:
        """True if the run ended well and its result is still there; call ``read`` before."""
        if not self.outcome or self.outcome.get("status") != "ok":
            return False
        return is_done(self.array.job(self.index).results / _name(self.outcome))

    def read(self, state: str | None) -> WorkerExit | None:
        """Pass new events on; return how the run ended, or None as long as it has not.

        Args:
            state: the state of the job in Slurm; None if that is unknown.
        """
        for event in self._events.read():
            self._take(event)
        stopped = self._exit and self._exit["stopped"]
        if self._exit and (not stopped or (self.outcome or {}).get("status") == "ok"):
            return self._end(self._exit, None)
        if self._exit and stopped == "SIGUSR2":
            return self._end(self._exit, "TIMEOUT")
        if state == GONE and self._shown == "PENDING" and not self._starts:
            # Slurm keeps no record of a job that is cancelled before it starts.
            state = "CANCELLED"
        if state == GONE and stopped == "SIGTERM":
            state = "CANCELLED"
        if state in ENDS:
            # By SIGTERM Slurm cancels a job as well as it requeues one: the state tells.
            self._lag += 1
            never_started = state == "CANCELLED" and not self._starts
            if self._exit or never_started or self._lag > _LAG:
                return self._end(self._exit, state)
        if state == "PENDING" and self._shown != state:
            self.on_event({"event": "requeued" if self._starts else "queued"})
        self._shown = state or self._shown
        return None

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "job":
                self._starts += 1
                self._exit = self.outcome = None
            case "exit":
                self._exit = event
            case kind if kind in _OUTCOMES:
                # Of a run that Slurm stops to start it again, this is not the end.
                self.outcome = event
            case "restarted":
                self.outcome = None
                self.on_event(event)
            case _:
                self.on_event(event)

    def _end(self, exit_: Event | None, state: str | None) -> WorkerExit:
        status, reason = ENDS[state] if state else (None, None)
        outcome = self.outcome
        if outcome and outcome.get("status") == "ok":
            self.on_event(outcome)
        elif outcome and outcome["event"] == "finished":
            message = f"{reason or outcome['message']} ({self.place})"
            self.on_event({**outcome, "status": status or outcome["status"], "message": message})
        elif outcome:
            self.on_event(outcome)
        how = {"code": 1, **(exit_ or {}), "status": status, "reason": reason, "place": self.place}
        return WorkerExit.model_validate(how)


def _name(outcome: Event) -> str:
    return str(outcome.get("folder", "")).rstrip("/").rpartition("/")[2]
