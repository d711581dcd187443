"""Executors, which start the runs of a sweep: the interface, and the one for this machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias

from pydantic import BaseModel, Field

from harness.api.compressor import OptionsT
from harness.api.options import NO_OPTIONS, Options, validate
from harness.api.parts import read_part
from harness.api.plugin_files import PluginFile
from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.records.report import Status
from harness.running.memory_kills import memory_kills
from harness.spec.run_spec import RunSpec

Event: TypeAlias = dict[str, Any]
"""Message of a worker; its field ``event`` names the kind. See ``harness.sweeps.worker``."""

_GRACE_SECONDS = 60.0
"""Seconds after its timeout at which a worker that has not ended by itself is killed."""
_LAST_LINES = 20


class Job(BaseModel):
    """Job of a worker: one run."""

    spec: RunSpec
    """Spec of the run."""
    id: str = ""
    """Id of the run on the machine of the sweep; on another device the run may get another."""
    results: Path
    """Results folder, in which the run's folder is created."""
    timeout: float | None = None
    """Seconds that the run may take."""
    micro_batch: int | None = None
    """See ``harness.running.run.Run``."""
    save_state_seconds: float = 300
    """See ``harness.running.run.Run``."""
    stop_after: int | None = None
    """Interrupt the run after its first evaluation at this step or later, and in any case before
    its test split is predicted. It can be resumed. None lets it finish."""
    plugin_files: list[PluginFile] = []
    """Plugins that are single files, which the worker registers."""
    processes: int = 1
    """Processes that train together, all of them on the worker's machine."""
    threads: int | None = None
    """Threads of each of several processes; by default those of ``harness run --nproc``."""
    max_restarts: int = 0
    """Number of times that all processes are started again after one of them was lost."""


class WorkerExit(BaseModel):
    """Exit of a worker's process."""

    code: int
    """Exit status; if a signal killed the process, minus the number of the signal."""
    stderr_tail: str = ""
    """Last lines of the process's standard error."""
    out_of_memory: bool = False
    """True if the kernel killed a process for memory while this one was running."""
    status: Status | None = None
    """Status of the run, if the executor knows it better than the exit status tells."""
    reason: str | None = None
    """Reason of that status, for the message; null if there is no status."""
    place: str = ""
    """Place of the run and of its log, for the message."""


class Executor(ABC, Generic[OptionsT]):
    """Runs workers, each in a fresh process.

    Args:
        options: the validated options, an instance of the class's own ``Options``.
    """

    Options: type[OptionsT] = NO_OPTIONS
    here: ClassVar[bool] = False
    """True if the workers run on this machine, so that measurements made here hold for them."""

    processes: int = 1
    """Processes of each run."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def use_processes(self, count: int) -> None:
        """Prepare for runs of several processes each; is called before everything else.

        An executor that requests resources requests those of all processes, on one machine, and
        stores their number in ``processes``.

        Args:
            count: the number of processes of each run, at least 2.

        Raises:
            HarnessError: the executor cannot do that, as this method of the base class.
        """
        raise HarnessError(
            f"The executor {type(self).__name__} starts runs of one process only.",
            "Leave out --nproc, or use one of the built-in executors: local, ray, slurm.",
        )

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number of workers at once. To measure undisturbed, one per machine or one per device."""

    def expect(self, runs: Sequence[str]) -> None:
        """Prepare for runs that ``run`` gets soon, to submit them together; here nothing.

        Args:
            runs: the ids of the runs, in the order of the sweep; some may turn out to be done.
        """

    @abstractmethod
    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Run one worker to its end; called in a thread of its own, in which it may block.

        Args:
            job: the worker's job.
            on_event: is called with every event as soon as it arrives.
        """

    def stop(self) -> None:
        """Tell all workers to save their states and end. May be called from any thread."""


class ProcessExecutor(Executor[OptionsT]):
    """Runs each worker as a child process, which a command starts on this machine or another.

    A subclass defines its options and slots, and puts its own command before that of the worker.
    The command must pass standard input and output through.
    """

    def __init__(self, options: OptionsT) -> None:
        super().__init__(options)
        self._running: set[subprocess.Popen[str]] = set()

    def command(self, job: Job) -> list[str]:
        """Return the command of a worker, here that of a fresh interpreter.

        Args:
            job: the job that the worker will read.
        """
        # -P: the current folder may hold modules named like the harness's.
        return [sys.executable, "-P", "-m", "harness.sweeps.worker"]

    def log(self, line: str) -> None:
        """Take a line that a worker wrote to its standard error; the last ones are kept anyway.

        Args:
            line: the line, with its end.
        """

    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Start the command, and read the worker's events until it ends."""
        killed_before = memory_kills()
        stderr_lines: deque[str] = deque(maxlen=_LAST_LINES)
        with _worker(self.command(job)) as process:
            self._running.add(process)
            assert process.stdin
            assert process.stdout
            assert process.stderr
            stderr = process.stderr

            def read() -> None:
                for line in stderr:
                    stderr_lines.append(line)
                    self.log(line)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            limit = threading.Timer((job.timeout or 0) + _GRACE_SECONDS, process.kill)
            # On another machine a worker may wait in a queue; it enforces its own timeout.
            if job.timeout and self.here:
                limit.start()
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(job.model_dump_json() + "\n")
                    process.stdin.flush()
                for line in process.stdout:
                    on_event(json.loads(line))
                code = process.wait()
            finally:
                limit.cancel()
                self._running.discard(process)
            reader.join(1)
        return WorkerExit(
            code=code,
            stderr_tail="".join(stderr_lines),
            out_of_memory=self.here and memory_kills() > killed_before,
        )

    def stop(self) -> None:
        """Close the workers' standard input, at which they save their states and end."""
        for process in tuple(self._running):
            with contextlib.suppress(OSError):
                assert process.stdin
                process.stdin.close()


class LocalOptions(Options):
    """Options of ``local``."""

    jobs: int = Field(1, ge=1)
    """Runs at once, or processes with --nproc; several runs disturb each other's measurements."""


class Local(ProcessExecutor[LocalOptions]):
    """Runs workers on this machine."""

    Options = LocalOptions
    here = True

    def use_processes(self, count: int) -> None:
        """Give each run as many slots as it has processes."""
        self.processes = count

    @property
    def slots(self) -> int:
        """Number of workers at once, from the options; there is always room for one."""
        return max(1, self.options.jobs // self.processes)


def open_executor(reference: str, plugins: Plugins) -> Executor[Any]:
    """Return the executor of a reference, which is written like a compressor: ``local:jobs=2``.

    Raises:
        HarnessError: an unknown name or option.
    """
    name, options = read_part(reference)
    kind: type[Executor[Any]] = plugins.executors.find(name).load()
    return kind(validate(kind.Options, options, f"executor {name!r}"))


def require_one_gpu_each(gpus: float, processes: int) -> None:
    """Check the GPUs that an option requests for each of several processes.

    Raises:
        HarnessError: a process uses one GPU, or none.
    """
    if gpus not in (0, 1):
        raise HarnessError(
            f"gpus={gpus:g} would be for each of {processes} processes, and a process uses one.",
            f"gpus=1 requests {processes} GPUs for a run.",
        )


@contextlib.contextmanager
def _worker(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        # Ctrl-C in the terminal reaches only the sweep, which then stops its workers.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        process.wait()
