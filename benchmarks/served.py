"""Servers as processes of their own: started, asked, ended and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from demands import demand

_START_SECONDS = 300


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
        return port


class Served:
    """A server in a process.

    Args:
        command: the command without the port.
        port: its port.
        threads: threads of its matrix products.
    """

    def __init__(self, command: Sequence[str], port: int, threads: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--port", str(port)]
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(10 * _START_SECONDS):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            demand(self._process.poll() is None, f"{self._command} has ended")
            time.sleep(0.1)
        demand(False, f"{self._command} does not answer")

    def metric(self, name: str) -> float:
        """Return a metric without labels."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        return float(line.split()[-1])

    def kill(self) -> None:
        """Kill the process."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Ask the process to end, and return its status."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_START_SECONDS)


@contextlib.contextmanager
def serving(command: Sequence[str], threads: int) -> Iterator[Served]:
    """Run a server on a free port within the context."""
    server = Served(command, free_port(), threads)
    server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()


def harness_command(folder: Path, search: dict[str, int], **limits: float | str) -> list[str]:
    """Return the command of the harness's server.

    Args:
        folder: the model.
        search: settings of the search.
        limits: limits of the server.
    """
    words = [sys.executable, "-m", "harness", "serve", str(folder), "--device", "cpu"]
    for name, value in search.items():
        words += ["--set", f"{name}={value}"]
    for name, limit in limits.items():
        words += [f"--{name.replace('_', '-')}", str(limit)]
    return words


def plain_command(folder: Path, search: dict[str, int]) -> list[str]:
    """Return the command of the plain server."""
    words = [sys.executable, str(Path(__file__).with_name("plain_server.py")), str(folder)]
    for name, value in search.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words
