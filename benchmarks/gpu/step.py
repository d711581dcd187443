"""Base of all steps: their command line, and a result that is written case by case."""

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
        result: the file for the result.
        device: ``cuda`` or ``cpu``.
        tiny: run at a size that shows nothing but that the step works.
        seconds: after which the step is ended.
        code: hash of the code; a result of other code is dropped.
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
        """What was found to be wrong, without being a failure to measure it."""

    @property
    def cases(self) -> dict[str, Any]:
        """Name -> what was found, or a ``failure``."""
        cases: dict[str, Any] = self.record["cases"]
        return cases

    @property
    def seconds_left(self) -> float:
        """Seconds until the step is ended."""
        return self.deadline - time.monotonic()

    def case(self, name: str, measure: Callable[[], dict[str, Any]], least: float = 0) -> None:
        """Measure a case, unless it is there; a failure is noted, and costs no other case.

        Args:
            name: of the case.
            measure: returns what is kept of it.
            least: seconds that must be left, or the case is left for the next call.
        """
        if name in self.cases and "failure" not in self.cases[name]:
            print(f"{name}: is there", flush=True)
            return
        if self.seconds_left < least:
            print(f"{name}: {self.seconds_left:.0f} s are left, too few", flush=True)
            self.unfinished = True
            return
        began = time.monotonic()
        try:
            found = measure()
        except Exception as error:  # Whatever a kernel, a driver or a library makes of it.
            traceback.print_exc()
            found = {"failure": _first_line(error)}
        found["seconds"] = round(time.monotonic() - began, 1)
        print(f"{name}: {found.get('failure', 'done')} ({found['seconds']} s)", flush=True)
        self.cases[name] = found
        self.save()
        if "failure" in found:
            _free_memory()

    def save(self) -> None:
        """Write what was found so far."""
        write_text(self.request.result, json.dumps(self.record, indent=1) + "\n")

    def finish(self, summary: str) -> int:
        """Write the result with a line that says what it is; return the exit status."""
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
        step: measures its cases, and returns a line that sums them up.
        arguments: of the command line.
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
    """Give back what a failed case held."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
