"""The process that Slurm starts for one run: its job is read from a file, its events go to one.

It starts the same worker as every executor, as a child, and so reports how the worker ended. Two
events are its own: ``job`` at each start, and ``exit`` with the fields of a ``WorkerExit`` and the
signal by which Slurm stopped the run, if it did. Every event has the time ``at`` which it was
written, in seconds, as it may be read much later.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO

from harness.api.plugin_files import PluginFile
from harness.sweeps.executor import Event, Job, Local, LocalOptions, WorkerExit
from harness.sweeps.slurm.job_array import JobArray

_ANSWER_SECONDS = 30
"""Timeout of a question to Slurm."""


class NodeWorker(Local):
    """Runs the worker on this node; its standard error goes to the job's log."""

    def __init__(self) -> None:
        super().__init__(LocalOptions())
        self.stopped: str | None = None
        """Signal by which Slurm stops this job, if it does."""
        self.done = False
        """True once the run has ended well."""

    def log(self, line: str) -> None:
        """Write a line to the job's log."""
        sys.stderr.write(line)
        sys.stderr.flush()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note the signal and pass it on; the worker ignores what comes twice."""
        self.stopped = self.stopped or signal.Signals(number).name
        for process in tuple(self._running):
            process.send_signal(number)


def work(job: Job, worker: NodeWorker, events: IO[str]) -> WorkerExit:
    """Run a job to its end, and write its events.

    Args:
        job: the job.
        worker: runs the worker's process.
        events: the file of the run's events.
    """

    def send(event: Event) -> None:
        events.write(json.dumps({**event, "at": time.time()}) + "\n")
        events.flush()
        worker.done = worker.done or event.get("status") == "ok"

    if events.tell():
        events.write("\n")  # The process before was possibly killed in the middle of a line.
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    send({"event": "job", "node": socket.gethostname(), "restarts": restarts})
    worker_exit = worker.run(job, send)
    send({"event": "exit", "stopped": worker.stopped, **worker_exit.model_dump(mode="json")})
    return worker_exit


def requeue_if_preempted() -> None:
    """Put this job back into the queue if Slurm has sent a signal and will do nothing more.

    A job that is to make room may get time to end by itself. If it used that time to end, Slurm
    would take it for a job that is done. A job that was cancelled or requeued has another state.
    """
    job = os.environ["SLURM_JOB_ID"]
    answer = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", job],
        capture_output=True,
        text=True,
        check=False,
        timeout=_ANSWER_SECONDS,
    )
    if " JobState=RUNNING " in answer.stdout:
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=_ANSWER_SECONDS)


def _plugin_files() -> list[PluginFile]:
    """Read the plugins that the command names, each as HASH:FILE."""
    given = (argument.partition(":") for argument in sys.argv[2:])
    return [PluginFile.read(Path(path), sha256) for sha256, _, path in given]


def main() -> None:
    """Run the job of this place in the array."""
    array = JobArray.read(Path(sys.argv[1]))
    assert array, f"{sys.argv[1]} holds no job array"
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    job = array.job(index).model_copy(update={"plugin_files": _plugin_files()})
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(cpus) // job.processes)))
    worker = NodeWorker()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, worker.on_signal)
    with array.events(index).open("a", encoding="utf-8") as events:
        worker_exit = work(job, worker, events)
    if worker.stopped == "SIGTERM" and not worker.done:
        requeue_if_preempted()
    sys.exit(worker_exit.code if worker_exit.code >= 0 else 128 - worker_exit.code)


if __name__ == "__main__":
    main()
