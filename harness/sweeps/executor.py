"""Executors, which start the runs of a sweep: the interface, and the one for this machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias

from pydantic import BaseModel, Field

from harness.api.compressor import OptionsT
from harness.api.options import Options, validate
from harness.api.parts import read_part
from harness.api.plugins import Plugins
from harness.spec.run_spec import RunSpec

Event: TypeAlias = dict[str, Any]
"""What a worker says: ``event`` names its kind; see ``harness.sweeps.worker``."""

_GRACE_SECONDS = 60.0
"""Time after its timeout at which a worker that has not ended by itself is killed."""
_LAST_LINES = 20
_VMSTAT = Path("/proc/vmstat")


class Job(BaseModel):
    """Job of a worker: one run."""

    spec: RunSpec
    """The run."""
    results: Path
    """Results folder, in which the run's folder is created."""
    timeout: float | None = None
    """Seconds that the run may take."""
    micro_batch: int | None = None
    """See ``harness.running.run.Run``."""
    save_state_seconds: float = 300
    """See ``harness.running.run.Run``."""


class WorkerExit(BaseModel):
    """Exit of a worker's process."""

    code: int
    """Exit status; negative is the number of the signal that killed it."""
    stderr_tail: str = ""
    """The end of what it wrote to standard error."""
    out_of_memory: bool = False
    """Whether the kernel killed a process for memory while this one was running."""


class Executor(ABC, Generic[OptionsT]):
    """Runs workers, each in a fresh process.

    Args:
        options: validated, of the class's own ``Options``.
    """

    Options: type[OptionsT]
    here: ClassVar[bool] = False
    """Whether its workers run on this machine, so that what is measured here holds for them."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number of workers at once; for measurements one per machine, or one per device."""

    @abstractmethod
    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Run one worker to its end; called in a thread of its own, in which it may block.

        Args:
            job: for the worker.
            on_event: called with every event, as it happens.
        """

    def stop(self) -> None:
        """Ask all workers to save their state and end. May be called from any thread."""


class ProcessExecutor(Executor[OptionsT]):
    """Runs each worker as a child process, which a command starts on this machine or another.

    A subclass names its options and slots, and puts its own command before that of the worker. The
    command must pass standard input and output through.
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

    def run(self, job: Job, on_event: Callable[[Event], None]) -> WorkerExit:
        """Start the command, and block in reading what the worker says."""
        killed_before = _kills()
        words: deque[str] = deque(maxlen=_LAST_LINES)
        with _worker(self.command(job)) as process:
            self._running.add(process)
            assert process.stdin
            assert process.stdout
            assert process.stderr
            stderr = process.stderr
            listener = threading.Thread(target=lambda: words.extend(stderr), daemon=True)
            listener.start()
            limit = threading.Timer((job.timeout or 0) + _GRACE_SECONDS, process.kill)
            # Elsewhere a worker may first wait in a queue. It keeps to its timeout by itself.
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
            listener.join(1)
        return WorkerExit(
            code=code,
            stderr_tail="".join(words),
            out_of_memory=self.here and _kills() > killed_before,
        )

    def stop(self) -> None:
        """Close what the workers read from: it is how they notice that nobody waits for them."""
        for process in tuple(self._running):
            with contextlib.suppress(OSError):
                assert process.stdin
                process.stdin.close()


class LocalOptions(Options):
    """Options of ``local``."""

    jobs: int = Field(1, ge=1)
    """Runs at once; more than one disturb each other's measurements."""


class Local(ProcessExecutor[LocalOptions]):
    """Runs workers on this machine."""

    Options = LocalOptions
    here = True

    @property
    def slots(self) -> int:
        """As the options say."""
        return self.options.jobs


def open_executor(reference: str, plugins: Plugins) -> Executor[Any]:
    """Return the executor that is written like a compressor, as in ``local:jobs=2``.

    Raises:
        HarnessError: an unknown name or option.
    """
    name, options = read_part(reference)
    kind: type[Executor[Any]] = plugins.executors.find(name).load()
    return kind(validate(kind.Options, options, f"executor {name!r}"))


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
        # The terminal's interrupt is for the sweep, which then stops its workers in order.
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


def _kills() -> int:
    """Return how many processes the kernel has killed for memory (Linux), 0 if it does not say."""
    with contextlib.suppress(OSError):
        for line in _VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
