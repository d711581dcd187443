"""The process of one run of a sweep: a job on standard input, events on standard output.

Each event is a line of JSON. ``data``, ``phase`` and ``step`` are those of a run's observers. The
last event is ``finished`` with the report's status, ``busy`` if another process is at work on the
run, or ``mistake`` with an error that the user must mend. When standard input ends or SIGTERM
arrives, the run saves its state and ends too. SIGUSR2 ends it as a timeout: a batch system sends it
before its limit. The first signal counts, as saving must not be interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import IO

from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
from harness.api.file_plugins import add_file
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.errors import BusyError, HarnessError
from harness.records.phase import Phase
from harness.sweeps.executor import Event, Job


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
    """Read a job from standard input and run it."""
    # Libraries may print to standard output, so the events get a descriptor of their own.
    stream = Stream(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    job = Job.model_validate_json(sys.stdin.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_with_input, daemon=True).start()
    plugins = installed()
    for file in job.plugin_files:
        add_file(plugins, file)
    plugins.manager.register(stream)
    if job.stop_after is not None:
        plugins.manager.register(Stop(job.stop_after))
    stream.send({"event": "phase", "phase": "start", "steps": None})
    from harness.running.failure import RunTimeoutError
    from harness.running.run import Run

    def time_is_over(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise RunTimeoutError(f"It took longer than {job.timeout:g} seconds.")

    def limit_is_near(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise RunTimeoutError("It reached the time limit of the batch system.")

    signal.signal(signal.SIGUSR2, limit_is_near)
    if job.timeout:
        signal.signal(signal.SIGALRM, time_is_over)
        signal.setitimer(signal.ITIMER_REAL, job.timeout)
    run = Run(
        job.spec,
        plugins,
        job.results,
        repeat=False,
        save_state_seconds=job.save_state_seconds,
        micro_batch=job.micro_batch,
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
