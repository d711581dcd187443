"""A run in several processes, started by the command line, whose processes can be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from killing import family


class LaunchedRun:
    """A run in several processes, which can be killed one by one.

    Args:
        words: arguments of ``harness run``.
        results: the folder of all runs.
        log: receives the messages.
    """

    def __init__(self, words: list[str], results: Path, log: Path) -> None:
        command = [sys.executable, "-m", "harness", "run", *words, "--out", str(results)]
        self.log = log
        with log.open("w", encoding="utf-8") as file:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        self._seen: dict[int, psutil.Process] = {}

    @property
    def running(self) -> bool:
        """True until the command has ended."""
        return self._process.poll() is None

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the processes of the group by their rank."""
        found = {}
        for process in family(self._process.pid)[1:]:
            self._seen[process.pid] = process
            try:
                if process.ppid() == self._process.pid:
                    found[int(process.environ()["RANK"])] = process
            except (psutil.NoSuchProcess, KeyError):
                continue  # It is about to begin, or has ended.
        return found

    def finish(self) -> int:
        """Wait for the end; return the exit status."""
        while self.running:
            self.ranks()
            time.sleep(0.2)
        return self._process.returncode

    def left(self) -> list[psutil.Process]:
        """Return the processes that still exist after ten seconds."""
        alive = psutil.wait_procs(list(self._seen.values()), timeout=10)[1]
        return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
