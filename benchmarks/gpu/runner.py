"""Runs the steps one after another, each in a process of its own with a limit of time."""

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
from pathlib import Path
from typing import Any

from visible_device import VARIABLE, first_visible

from gpu.archive import write_archive
from gpu.card import Card
from gpu.readme import STATE, write_readme
from gpu.step_list import Step
from harness.records.atomic import write_text

DONE, FAILED, UNFINISHED = 0, 1, 3
"""What a step's process ends with: all its cases are there, one failed, time ran out."""
STATUS = {DONE: "ok", FAILED: "failed", UNFINISHED: "unfinished"}
LEAST = 5.0
"""Seconds without which a step is not started: its imports alone take longer."""


class Runner:
    """All steps of one call.

    Args:
        root: of the checkout.
        folder: for the results of this card.
        card: the device.
        steps: what to run, in this order.
        tiny: run at a size that shows nothing but that the steps work.
        seconds: limit of all steps together.
        out: folder of the archive that each step refreshes; None for no archive.
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

    def run(self) -> int:
        """Run what is not done yet; return 0 if everything is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("card.json", self.card.record)
        self.state = self._earlier_state()
        for place, step in enumerate(self.steps):
            later = sum(s.seconds for s in self.steps[place + 1 :])
            entry = self.state["steps"].get(step.name)
            if entry is None or entry["status"] != "ok":
                entry = self._entry(step, self.deadline - time.monotonic() - later)
                self.state["steps"][step.name] = entry
                self._write(STATE, self.state)
            self._refresh()
            print(line(place + 1, len(self.steps), step, entry), flush=True)
        return int(any(entry["status"] != "ok" for entry in self.state["steps"].values()))

    def _entry(self, step: Step, seconds: float) -> dict[str, Any]:
        """Run a step; return how it ended."""
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
        return {**entry, "summary": self._summary(step, code, log)}

    def _finish(self, step: Step, seconds: float, output: Any) -> int:
        """Start a step's process and wait for its end, which is forced when time runs out."""
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
            env=self._environment(),
            start_new_session=True,  # So that its own children end with it.
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return UNFINISHED
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _environment(self) -> dict[str, str]:
        paths = [str(self.root / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            VARIABLE: first_visible(os.environ),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            # Asking for a device then leaves CUDA alone, so that a process can still be forked.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }

    def _summary(self, step: Step, code: int, log: Path) -> str:
        """Return a step's own words, or the last line of what it printed."""
        if code in STATUS:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((self.folder / f"{step.name}.json").read_text("utf-8"))
                if summary := found.get("summary"):
                    return str(summary)
        if code == UNFINISHED:
            return "time ran out"
        lines = log.read_text("utf-8", errors="replace").split("\n")
        last = next((text.strip() for text in reversed(lines) if text.strip()), "no output")
        return f"ended with status {code}: {last}"

    def _earlier_state(self) -> dict[str, Any]:
        """Return what an earlier call left, if the same code left it on the same machine."""
        head = {"code": self.code, "tiny": self.tiny, "card": self.card.name}
        with contextlib.suppress(OSError, ValueError):
            before: dict[str, Any] = json.loads((self.folder / STATE).read_text("utf-8"))
            if {key: before.get(key) for key in head} == head:
                return before
        return {**head, "steps": {}}

    def _refresh(self) -> None:
        """Refresh what shows all results; a failure here must cost no step."""
        try:
            # A rehearsal has a page of its own.
            write_readme(self.folder if self.tiny else self.folder.parent)
            if self.out is not None:
                write_archive(self.folder, self.out)
        except Exception as error:
            print(f"Page or archive was not written: {error}", file=sys.stderr, flush=True)

    def _write(self, name: str, record: dict[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(record, indent=1) + "\n")


def line(number: int, count: int, step: Step, entry: dict[str, Any]) -> str:
    """Return the line that is printed of a step."""
    return (
        f"{number}/{count} {step.name:9} {entry['status']:10} {entry['seconds']:5.0f} s  "
        f"{entry['summary']}"
    )


def code_of(root: Path) -> str:
    """Return a hash of all code that a result depends on."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "compressors", "harness", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
