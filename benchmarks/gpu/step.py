"""Command line of a step, and its result, which is written case by case."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.runner import DONE, FAILED, UNFINISHED
from harness.records.atomic import write_text


@dataclass(frozen=True)
class Request:
    """Request to a step.

    Attributes:
        result: file of the result.
        device: ``cuda`` or ``cpu``.
        tiny: run at a size that only shows that the step works.
        seconds: time limit of the step.
        code: hash of the code; stored results of other code are dropped.
    """

    result: Path
    device: str
    tiny: bool
    seconds: float
    code: str


class StepResult:
    """Measurements of the cases of a step; a stored case is not measured again.

    Args:
        request: what was requested.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.deadline = time.monotonic() + request.seconds
        head = {"code": request.code, "device": request.device, "tiny": request.tiny}
        self.record: dict[str, Any] = {**head, "summary": "", "cases": {}}
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(request.result.read_text("utf-8"))
            if {key: before.get(key) for key in head} == head:
                self.record = before
        self.unfinished = False
        self.wrong: list[str] = []
        """Cases that were measured and gave a wrong result."""

    @property
    def cases(self) -> dict[str, Any]:
        """Name of a case -> its measurements, or a ``failure``."""
        cases: dict[str, Any] = self.record["cases"]
        return cases

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit of the step."""
        return self.deadline - time.monotonic()

    def is_stored(self, name: str) -> bool:
        """Return whether a case has been measured without a failure."""
        return "failure" not in self.cases.get(name, {"failure": ""})

    def case(self, name: str, measure: Callable[[], dict[str, Any]], least: float = 0) -> None:
        """Measure a case unless it is stored; a failure is stored too and stops no other case.

        Args:
            name: name of the case.
            measure: returns the measurements to store; a ``failure`` among them says why they are
                not complete.
            least: seconds that must be left; otherwise the next call measures the case.
        """
        if self.is_stored(name):
            print(f"{name}: is stored", flush=True)
            return
        if self.seconds_left < least:
            print(f"{name}: {self.seconds_left:.0f} s are left, too few", flush=True)
            self.unfinished = True
            return
        began = time.monotonic()
        try:
            measurements = measure()
        except Exception as error:  # Kernels, drivers and libraries raise errors of any type.
            traceback.print_exc()
            measurements = {"failure": _first_line(error)}
        measurements["seconds"] = round(time.monotonic() - began, 1)
        print(
            f"{name}: {measurements.get('failure', 'done')} ({measurements['seconds']} s)",
            flush=True,
        )
        self.cases[name] = measurements
        self.save()
        if "failure" in measurements:
            _free_memory()

    def save(self) -> None:
        """Write all measurements so far."""
        write_text(self.request.result, json.dumps(self.record, indent=1) + "\n")

    def finish(self, summary: str) -> int:
        """Write the result with its summary; return the exit status."""
        failures = {name: c["failure"] for name, c in self.cases.items() if "failure" in c}
        if failures:
            name, why = next(iter(failures.items()))
            summary = f"{summary}; {len(failures)} failed, first {name}: {why}"
        self.record["wrong"] = self.wrong
        self.record["summary"] = summary.removeprefix("; ")
        self.save()
        if failures or self.wrong:
            return FAILED
        return UNFINISHED if self.unfinished else DONE


def run_step(step: Callable[[StepResult], str], arguments: list[str] | None = None) -> int:
    """Run a step by its command line.

    Args:
        step: measures its cases and returns a one-line summary.
        arguments: arguments of the command line; None reads those of the process.
    """
    parser = argparse.ArgumentParser(prog=getattr(step, "__module__", None))
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--code", default="")
    result = StepResult(Request(**vars(parser.parse_args(arguments))))
    return result.finish(step(result))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _free_memory() -> None:
    """Free the memory of a failed case."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
