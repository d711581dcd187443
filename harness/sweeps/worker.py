"""The process of one run of a sweep: a job on standard input, events on standard output.

Each event is a line of JSON. ``data``, ``phase`` and ``step`` are those of a run's observers. The
last event is ``finished`` with the report's status, ``busy`` if another process is at work on the
run, or ``mistake`` with an error that the user must mend. When standard input ends or SIGTERM
arrives, the run saves its state and ends too. SIGUSR2 ends it as a timeout: a batch system sends it
before its limit. The first signal counts, as saving must not be interrupted.

The worker of a run in several processes starts them as ``harness run --nproc`` does. They execute
this module too, with the job in a file, and the events are those of the first one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
from harness.api.file_plugins import add_file
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.errors import BusyError, HarnessError
from harness.records.phase import Phase
from harness.sweeps.executor import Event, Job

if TYPE_CHECKING:
    from harness.records.report import Status
    from harness.training.processes import Processes


class Stream:
    """Writes the events of a run as lines of JSON."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def send(self, event: Event) -> None:
        """Write one event; does nothing if the reader has closed its end."""
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except BrokenPipeError:
            pass

    @hookimpl
    def data_read(self, event: DataRead) -> None:
        """Send the notes on the data."""
        if event.notes:
            self.send({"event": "data", "notes": list(event.notes)})

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        """Send the phase that begins."""
        self.send({"event": "phase", "phase": event.phase, "steps": event.steps})

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        """Send the step that is done."""
        self.send({"event": "step", "step": event.step})


class Stop:
    """Interrupts a run after an evaluation, and before its test split is predicted.

    Args:
        step: the step at which the evaluation is due.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._is_due = False

    @hookimpl
    def evaluated(self, event: Evaluated) -> None:
        """Note whether the evaluation is the one to stop after, whose state is not yet saved."""
        self._is_due = event.step >= self._step

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        """Interrupt at the first step after the evaluation."""
        if self._is_due:
            _interrupt()

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        """Interrupt when training is over."""
        if event.phase == Phase.EVALUATE.value:
            _interrupt()


def main() -> None:
    """Execute a job: from standard input, or from a file as one of several processes."""
    if len(sys.argv) > 1:
        _take_part(Path(sys.argv[1]))
        return
    job = Job.model_validate_json(sys.stdin.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_with_input, daemon=True).start()
    if job.processes > 1 or job.max_restarts:
        _lead(job)
        return
    stream = _separate_events()
    _add_plugins(job)
    stream.send({"event": "phase", "phase": "start", "steps": None})
    _watch_time(job, job.timeout)
    _execute(job, stream)


def _lead(job: Job) -> None:
    """Start the processes of a job; the first one writes its events to the same output."""
    # The output keeps its descriptor, since a process inherits no other.
    stream, sys.stdout = Stream(sys.stdout), sys.stderr
    stream.send({"event": "phase", "phase": "start", "steps": None})
    from harness.sweeps.group import lead

    _watch_time(job, job.timeout)
    status = lead(job, stream.send)
    _ignore_signals()
    sys.exit(status)


def _take_part(file: Path) -> None:
    """Execute a job as one of the processes that ``_lead`` started."""
    job = Job.model_validate_json(file.read_bytes())
    is_first = os.environ["RANK"] == "0"
    stream = _separate_events()
    signal.signal(signal.SIGINT, _interrupt)
    _add_plugins(job)
    _watch_time(job)
    from harness.running.group import in_group
    from harness.running.launch import failure_status

    try:
        status = in_group(job.spec, lambda group: _execute(job, stream, group), job.micro_batch)
    except HarnessError as error:
        if is_first:
            stream.send({"event": "mistake", "message": str(error)})
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    if status not in (None, "ok"):
        sys.exit(failure_status(status))


def _add_plugins(job: Job) -> None:
    for file in job.plugin_files:
        add_file(installed(), file)


def _separate_events() -> Stream:
    """Return a stream to standard output; what libraries print there goes to standard error."""
    stream = Stream(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    return stream


def _watch_time(job: Job, seconds: float | None = None) -> None:
    """Raise RunTimeoutError after some seconds, or when the launcher or a batch system says so."""
    from harness.running.failure import RunTimeoutError

    def time_is_over(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise RunTimeoutError(f"It took longer than {job.timeout or 0:g} seconds.")

    def limit_is_near(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise RunTimeoutError("It reached the time limit of the batch system.")

    signal.signal(signal.SIGUSR2, limit_is_near)
    signal.signal(signal.SIGALRM, time_is_over)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _execute(job: Job, stream: Stream, processes: Processes | None = None) -> Status | None:
    """Execute a job; return the status of its report, or None if there is none."""
    from harness.running.failure import RunTimeoutError
    from harness.running.run import Run

    plugins = installed()
    plugins.manager.register(stream)
    if job.stop_after is not None:
        plugins.manager.register(Stop(job.stop_after))
    run = Run(
        job.spec,
        plugins,
        job.results,
        repeat=False,
        save_state_seconds=job.save_state_seconds,
        micro_batch=job.micro_batch,
        processes=processes,
    )
    try:
        report, folder = run.execute()
    except BusyError as error:
        stream.send({"event": "busy", "message": str(error)})
    except HarnessError as error:
        stream.send({"event": "mistake", "message": str(error)})
    except RunTimeoutError as error:
        stream.send({"event": "finished", "status": "timeout", "message": str(error)})
    else:
        message = report.failure.message if report.failure else None
        outcome = {"status": report.status, "folder": str(folder), "message": message}
        stream.send({"event": "finished", "phase": run.phase, **outcome})
        return report.status
    return None


def _interrupt(number: int = 0, frame: FrameType | None = None) -> None:
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _end_with_input() -> None:
    # Past Python's own buffer, whose lock a thread must not hold while the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
