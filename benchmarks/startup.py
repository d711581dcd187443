"""Time commands that need no model, each in a fresh process: python benchmarks/startup.py --help.

The hard part is what Python imports before the first line appears. A bare ``python -c pass`` runs
before each command, in turn, and the ratio to it is what is compared between machines: seconds of
the processor, all threads of the process, start-up included. Byte code is cached, as it is from the
second call on. The benchmark fails where a command fails or shows nothing, and where the caches of
byte code are not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demands import demand

from harness.records.atomic import write_text

FILE = "startup.json"
GOAL = 0.5
"""Processor seconds that a light command may take."""
PLAIN = "python -c pass"
COMMANDS = (
    "--help",
    "list",
    "list compressors lora_ff",
    "run --help",
    "plan --help",
    "report --help",
)


def call(words: Sequence[str]) -> tuple[float, float, str]:
    """Return wall and processor seconds of a command, and what it wrote."""
    # Without it byte code would be made anew in every call.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.perf_counter() - began, os.times()
    demand(not done.returncode, f"{' '.join(words)} failed: {done.stderr.strip()}")
    children = (after.children_user, after.children_system)
    used = sum(children) - (before.children_user + before.children_system)
    return wall, used, done.stdout


def words_of(command: str) -> list[str]:
    """Return what starts a command of the harness, or Python with nothing to do."""
    if command == PLAIN:
        return [sys.executable, "-c", "pass"]
    return [sys.executable, "-m", "harness", *command.split()]


def check_shown(command: str, shown: str) -> None:
    """Fail where a command shows nothing: its work is then not done."""
    lines = len(shown.splitlines())
    demand(command == PLAIN or lines >= 5, f"harness {command} shows {lines} lines")


def check_byte_code(module: str) -> None:
    """Fail where a module would be compiled in every call."""
    spec = importlib.util.find_spec(module)
    cached = spec is not None and spec.cached is not None and Path(spec.cached).is_file()
    demand(cached, f"no byte code of {module} is kept: can its folder be written?")


def measure(commands: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Call commands in turn; return the seconds of each."""
    names = [PLAIN, *commands]
    for name in names:  # Makes the byte code.
        check_shown(name, call(words_of(name))[2])
    check_byte_code("harness.cli.main")
    found: dict[str, dict[str, Any]] = {n: {"wall": [], "processor": []} for n in names}
    for _ in range(repeats):
        for name in names:
            wall, processor, _ = call(words_of(name))
            found[name]["wall"].append(wall)
            found[name]["processor"].append(processor)
    plain = found[PLAIN]["processor"]
    for times in found.values():
        times["ratio"] = statistics.median(times["processor"]) / statistics.median(plain)
    return found


def main() -> int:
    """Measure, print a line for each command, write all; return 1 if a command missed the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    found = measure(COMMANDS, options.repeats)
    missed = []
    for name, times in found.items():
        wall, processor = (statistics.median(times[kind]) for kind in ("wall", "processor"))
        if name != PLAIN and processor >= GOAL:
            missed.append(name)
        shown = name if name == PLAIN else f"harness {name}"
        print(f"{shown:32} {wall:5.2f} s, {processor:5.2f} of CPU: {times['ratio']:5.1f}x python")
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps({"goal": GOAL, "commands": found}, indent=1) + "\n")
    print(f"Goal, {GOAL:g} s of CPU: {'missed by ' + ', '.join(missed) if missed else 'reached'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
