"""Runs the steps in sequence, each in a process of its own with a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Any

from visible_device import VARIABLE, first_visible

from gpu.archive import write_archive
from gpu.card import Card
from gpu.readme import STATE, write_readme
from gpu.step_list import Step
from harness.records.atomic import write_text

DONE, FAILED, UNFINISHED = 0, 1, 3
"""Exit status of a step: all cases are measured, one failed, or time ran out."""
STATUS = {DONE: "ok", FAILED: "failed", UNFINISHED: "unfinished"}
LEAST = 5.0
"""Least seconds to start a step: its imports alone take longer."""
REFRESH = 10.0
"""Seconds between two refreshes of the page and the archive while a step runs."""


class Runner:
    """All steps of one call.

    Args:
        root: folder of the checkout.
        folder: folder for the results of this card.
        card: the device.
        steps: steps to run, in this order.
        tiny: run at a size that shows nothing but that the steps work.
        seconds: time limit of all steps together.
        out: folder of the archive, which is refreshed while steps run; None for no archive.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        card: Card,
        steps: Sequence[Step],
        tiny: bool,
        seconds: float,
        out: Path | None = None,
    ) -> None:
        self.root = root
        self.folder = folder
        self.card = card
        self.steps = steps
        self.tiny = tiny
        self.deadline = time.monotonic() + seconds
        self.out = out
        self.code = code_of(root)
        self.state: dict[str, Any] = {}
        self._lock = RLock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self) -> int:
        """Run the steps that are not done yet; return 0 if all are done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("card.json", self.card.record)
        self.state = self._earlier_state()
        try:
            for place, together in enumerate(groups := in_groups(self.steps)):
                later = sum(group[0].seconds for group in groups[place + 1 :])
                with ThreadPoolExecutor(len(together)) as threads:
                    running = [threads.submit(self._take, step, later) for step in together]
                    try:
                        for step_running in running:
                            step_running.result()
                    except BaseException:
                        self._stopped = True
                        for process in list(self._processes):
                            kill(process)
                        raise
        finally:
            self._refresh()  # An interrupted step has written its cases.
        return int(any(entry["status"] != "ok" for entry in self.state["steps"].values()))

    def _take(self, step: Step, later: float) -> None:
        """Run a step unless it is done, and print its line.

        Args:
            step: the step.
            later: seconds that the steps after it need.
        """
        entry = self.state["steps"].get(step.name)
        if entry is None or entry["status"] != "ok":
            entry = self._entry(step, self.deadline - time.monotonic() - later)
        with self._lock:
            self.state["steps"][step.name] = entry
            self._write(STATE, self.state)
            self._refresh()
            print(line(self.steps.index(step) + 1, len(self.steps), step, entry), flush=True)

    def _entry(self, step: Step, seconds: float) -> dict[str, Any]:
        """Run a step; return its status, seconds and summary."""
        if seconds < LEAST:
            return {"status": "unfinished", "seconds": 0, "summary": "no time was left for it"}
        began = time.monotonic()
        log = self.folder / f"{step.name}.log"
        with log.open("ab") as output:
            code = self._finish(step, seconds, output)
        entry = {
            "status": STATUS.get(code, "failed"),
            "seconds": round(time.monotonic() - began, 1),
        }
        summary = summary_of(self.folder, step, code, log)
        return {**entry, "summary": "stopped" if self._stopped else summary}

    def _finish(self, step: Step, seconds: float, output: Any) -> int:
        """Start the process of a step and wait for it; kill it when time runs out."""
        command = [sys.executable, "-m", step.module]
        command += ["--result", str(self.folder / f"{step.name}.json")]
        command += ["--device", self.card.device, "--seconds", f"{seconds:.0f}"]
        command += ["--code", self.code, *(["--tiny"] if self.tiny else [])]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(self.root),
            start_new_session=True,  # Its own children can then be killed with it.
        )
        self._processes.add(process)
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(min(left, REFRESH))
                    return UNFINISHED if self._stopped else code
                self._refresh()  # This process may be killed at any time.
            return UNFINISHED
        finally:
            kill(process)
            self._processes.discard(process)

    def _earlier_state(self) -> dict[str, Any]:
        """Return the state of an earlier call, if it had the same code, size and card."""
        head = {"code": self.code, "tiny": self.tiny, "card": self.card.name}
        with contextlib.suppress(OSError, ValueError):
            before: dict[str, Any] = json.loads((self.folder / STATE).read_text("utf-8"))
            if {key: before.get(key) for key in head} == head:
                return before
        return {**head, "steps": {}}

    def _refresh(self) -> None:
        """Rewrite the page and the archive; a failure here must not stop the steps."""
        try:
            with self._lock:
                # A rehearsal has a page of its own.
                write_readme(self.folder if self.tiny else self.folder.parent)
                if self.out is not None:
                    write_archive(self.folder, self.out)
        except Exception as error:
            print(f"Page or archive was not written: {error}", file=sys.stderr, flush=True)

    def _write(self, name: str, record: dict[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(record, indent=1) + "\n")


def environment(root: Path) -> dict[str, str]:
    """Return the environment of a step."""
    paths = [str(root / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        VARIABLE: first_visible(os.environ),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        # Asking for a device then does not start CUDA, so a process can still be forked.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }


def summary_of(folder: Path, step: Step, code: int, log: Path) -> str:
    """Return the summary that a step wrote, or the last line of its output."""
    if code in STATUS:
        with contextlib.suppress(OSError, ValueError):
            record = json.loads((folder / f"{step.name}.json").read_text("utf-8"))
            if summary := record.get("summary"):
                return str(summary)
    if code == UNFINISHED:
        return "time ran out"
    lines = log.read_text("utf-8", errors="replace").split("\n")
    last = next((text.strip() for text in reversed(lines) if text.strip()), "no output")
    return f"ended with status {code}: {last}"


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children, and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def in_groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Return the steps in groups that run at the same time.

    Steps that measure neither time nor the memory of the device run beside each other.
    """
    groups: list[list[Step]] = []
    for step in steps:
        if groups and step.only_compares and groups[-1][0].only_compares:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def line(number: int, count: int, step: Step, entry: dict[str, Any]) -> str:
    """Return the line to print for a step."""
    return (
        f"{number}/{count} {step.name:9} {entry['status']:10} {entry['seconds']:5.0f} s  "
        f"{entry['summary']}"
    )


def code_of(root: Path) -> str:
    """Return a hash of all code on which results depend."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "compressors", "harness", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
