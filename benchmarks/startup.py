"""Time commands that need no model, each in a fresh process: python benchmarks/startup.py --help.

Most of the time is imports before the first line of output. A bare ``python -c pass`` runs in turn
with the commands; the ratio to it can be compared between machines. Times are processor seconds of
all threads of the process, start-up included. Byte code is cached, as from the second call on. The
benchmark fails if a command fails or prints nothing, and if byte code is not cached.
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
"""Maximum processor seconds of a light command."""
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
    """Return wall and processor seconds of a command, and its output."""
    # With this variable Python would compile byte code in every call.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began, before = time.perf_counter(), os.times()
    process = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.perf_counter() - began, os.times()
    demand(not process.returncode, f"{' '.join(words)} failed: {process.stderr.strip()}")
    children = (after.children_user, after.children_system)
    used = sum(children) - (before.children_user + before.children_system)
    return wall, used, process.stdout


def words_of(command: str) -> list[str]:
    """Return the words that start a command of the harness, or a bare Python."""
    if command == PLAIN:
        return [sys.executable, "-c", "pass"]
    return [sys.executable, "-m", "harness", *command.split()]


def check_shown(command: str, shown: str) -> None:
    """Fail if a command prints almost nothing: then it has not done its work."""
    lines = len(shown.splitlines())
    demand(command == PLAIN or lines >= 5, f"harness {command} shows {lines} lines")


def check_byte_code(module: str) -> None:
    """Fail if a module would be compiled in every call."""
    spec = importlib.util.find_spec(module)
    cached = spec is not None and spec.cached is not None and Path(spec.cached).is_file()
    demand(cached, f"no byte code of {module} is kept: can its folder be written?")


def measure(commands: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Call commands in turn; return the seconds of each."""
    names = [PLAIN, *commands]
    for name in names:  # Writes the byte code.
        check_shown(name, call(words_of(name))[2])
    check_byte_code("harness.cli.main")
    seconds_of: dict[str, dict[str, Any]] = {n: {"wall": [], "processor": []} for n in names}
    for _ in range(repeats):
        for name in names:
            wall, processor, _ = call(words_of(name))
            seconds_of[name]["wall"].append(wall)
            seconds_of[name]["processor"].append(processor)
    plain = seconds_of[PLAIN]["processor"]
    for times in seconds_of.values():
        times["ratio"] = statistics.median(times["processor"]) / statistics.median(plain)
    return seconds_of


def main() -> int:
    """Measure; print a line per command; write all; return 1 if a command missed the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    seconds_of = measure(COMMANDS, options.repeats)
    missed = []
    for name, times in seconds_of.items():
        wall, processor = (statistics.median(times[kind]) for kind in ("wall", "processor"))
        if name != PLAIN and processor >= GOAL:
            missed.append(name)
        shown = name if name == PLAIN else f"harness {name}"
        print(f"{shown:32} {wall:5.2f} s, {processor:5.2f} of CPU: {times['ratio']:5.1f}x python")
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(
        options.out / FILE, json.dumps({"goal": GOAL, "commands": seconds_of}, indent=1) + "\n"
    )
    print(f"Goal, {GOAL:g} s of CPU: {'missed by ' + ', '.join(missed) if missed else 'reached'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
