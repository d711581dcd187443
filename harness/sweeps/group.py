"""A run of a sweep in several processes, which its worker starts and waits for."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.records.run_folder import read_report
from harness.running.failure import RunTimeoutError, error_of, status_of
from harness.running.launch import GroupExit, launch
from harness.sweeps.executor import Event, Job

_INTERRUPTED = 128 + signal.SIGINT


def lead(job: Job, send: Callable[[Event], None]) -> int:
    """Start the processes of a job by the launcher of ``harness run --nproc``; wait for their end.

    The first process writes the events of the run to this one's standard output. This one adds
    ``restarted``, and ``finished`` if the first process was lost.

    Args:
        job: the job.
        send: writes an event.

    Returns:
        The exit status of the worker.
    """

    def on_restart(message: str) -> None:
        sys.stderr.write(f"{message}\n")
        send({"event": "restarted", "message": message})

    if job.threads:
        os.environ["OMP_NUM_THREADS"] = str(job.threads)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "job.json")
        file.write_text(job.model_dump_json(), "utf-8")
        # -P: the current folder may hold modules named like the harness's.
        command = ["-P", "-m", "harness.sweeps.worker", str(file)]
        try:
            ended = launch(
                command, job.processes, job.spec, job.results, job.max_restarts, on_restart
            )
        except HarnessError as error:
            send({"event": "mistake", "message": str(error)})
            return error.exit_code
        except RunTimeoutError as error:  # Before there was a process.
            send({"event": "finished", "status": "timeout", "message": str(error)})
            return 1
        except KeyboardInterrupt:
            return _INTERRUPTED
    return _conclude(ended, send)


def _conclude(ended: GroupExit, send: Callable[[Event], None]) -> int:
    """Send how a run ended, if its first process could not; return the exit status."""
    failure = ended.failure
    if failure is None:
        return 0
    if ended.report:
        report = read_report(ended.report)
        message = report.failure.message if report.failure else None
        outcome = {"status": report.status, "folder": str(ended.report), "message": message}
        send({"event": "finished", **outcome})
    elif ended.run is None and failure.status < 0:
        status = status_of(error_of(failure))
        send({"event": "finished", "status": status, "message": failure.message})
    return failure.status if failure.status > 0 else 128 - failure.status
