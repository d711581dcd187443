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
"""Least number of optimizer steps before training is killed."""
PATIENCE = 600.0
"""Seconds to wait for these steps."""


class Sweep:
    """One sweep into a folder of its own, which can be started several times.

    Args:
        arguments: arguments of ``harness sweep``.
        results: folder of the runs.
        log: file for the sweep's output.
    """

    def __init__(self, arguments: Sequence[str], results: Path, log: Path) -> None:
        start = [sys.executable, "-u", "-m", "harness", "sweep", "--yes", "--no-probe"]
        self.command = [*start, *arguments, "--out", str(results)]
        self.results = results
        self.log = log

    def run(self, should_kill: Callable[[str], bool] = lambda line: False) -> int | None:
        """Run the sweep to its end, or until it is killed.

        Args:
            should_kill: is called with every line of output; True kills the sweep.

        Returns:
            The exit status; None if the sweep was killed.
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
                    if should_kill(line.rstrip("\n")):
                        return None
                return process.wait()
            finally:
                kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and its descendants; each worker leads a process group of its own."""
    if process.poll() is not None:
        return
    suspended: list[psutil.Process] = []
    # All are suspended first, so that none starts another one meanwhile.
    while running := [p for p in family(process.pid) if p not in suspended]:
        for member in running:
            signal_if_alive(member, psutil.Process.suspend)
        suspended += running
    for member in suspended:
        signal_if_alive(member, psutil.Process.kill)
    process.wait()
    _, alive = psutil.wait_procs(suspended, timeout=30)
    if alive := [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]:
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
                time.sleep(2)  # A probe writes nothing before it ends.
                break
            counts = [path.read_bytes().count(b"\n") for path in self.work(name)]
            if max(counts, default=0) >= lines:
                break
            time.sleep(0.05)
        else:
            demand(False, f"nothing to lose in the phase {self.phase} after {PATIENCE:.0f} s")
        print(f"Killed in the phase {self.phase}.", flush=True)
        return True

    def work(self, name: str) -> list[Path]:
        """Return the files with this name in the folders of all running runs."""
        return sorted(self.results.glob(f".*.partial/{name}"))
