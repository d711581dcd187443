"""Starts a sweep in its own processes, and kills them without warning."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from demands import demand

from harness.records.run_folder import HISTORY, PARTIAL_PREDICTIONS

STEPS_BEFORE = 3
"""Optimizer steps before a training is killed, at least."""
PATIENCE = 600.0
"""Seconds to wait for these steps."""


class Sweep:
    """One sweep into a folder of its own, started as often as need be.

    Args:
        arguments: of ``harness sweep``.
        results: where the runs go.
        log: where everything that it says goes.
    """

    def __init__(self, arguments: Sequence[str], results: Path, log: Path) -> None:
        start = [sys.executable, "-u", "-m", "harness", "sweep", "--yes", "--no-probe"]
        self.command = [*start, *arguments, "--out", str(results)]
        self.results = results
        self.log = log

    def run(self, heard: Callable[[str], bool] = lambda line: False) -> int | None:
        """Run it to its end, or until it is to be killed.

        Args:
            heard: called with every line that it says; whether to kill it now.

        Returns:
            Its exit status; None if it was killed.
        """
        with (
            self.log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                self.command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                assert process.stderr
                for line in process.stderr:
                    log.write(line)
                    log.flush()
                    print(f"  {line}", end="", flush=True)
                    if heard(line.rstrip("\n")):
                        return None
                return process.wait()
            finally:
                kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it started; each worker leads a group of its own."""
    if process.poll() is not None:
        return
    doomed: list[psutil.Process] = []
    # Stopped first, so that none can start another while they are being killed.
    while fresh := [p for p in family(process.pid) if p not in doomed]:
        for each in fresh:
            signal_if_alive(each, psutil.Process.suspend)
        doomed += fresh
    for each in doomed:
        signal_if_alive(each, psutil.Process.kill)
    process.wait()
    _, alive = psutil.wait_procs(doomed, timeout=30)
    if alive := [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]:
        raise SystemExit(f"These processes do not end: {alive}")


def family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def signal_if_alive(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    """Send a signal to a process that may have ended by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        send(process)


class Killer:
    """Decides when a sweep dies: in a phase, once there is something to lose.

    Args:
        phase: the phase of a run in which the sweep is killed.
        results: the sweep's folder.
        after: number of runs that must have ended before.
    """

    def __init__(self, phase: str, results: Path, after: int) -> None:
        self.phase = phase
        self.results = results
        self.after = after
        self.ended = 0

    def __call__(self, line: str) -> bool:
        """Read a line of the log; return True when the sweep should be killed, else False."""
        self.ended += line.endswith(": ok")
        if self.ended < self.after or not line.endswith(f": {self.phase}"):
            return False
        needed = {"train": (HISTORY, STEPS_BEFORE), "evaluate": (PARTIAL_PREDICTIONS, 1)}
        name, lines = needed.get(self.phase, ("", 0))
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            if not name:
                time.sleep(2)  # A probe leaves no trace before it is over.
                break
            found = [path.read_bytes().count(b"\n") for path in self.work(name)]
            if max(found, default=0) >= lines:
                break
            time.sleep(0.05)
        else:
            demand(False, f"nothing to lose in the phase {self.phase} after {PATIENCE:.0f} s")
        print(f"Killed in the phase {self.phase}.", flush=True)
        return True

    def work(self, name: str) -> list[Path]:
        """Return the files with this name in the folders of all running runs."""
        return sorted(self.results.glob(f".*.partial/{name}"))
