"""Train on a million examples: tokenized once, in flat memory, and soon at the first step.

    python benchmarks/large_data.py --help

The program writes examples to a JSONL file and starts ``harness run`` on it three times, each time
with a small T5 of random weights and a few steps: first with an empty cache, then with another
seed, as the next cell of a sweep has it, then in two processes. A fourth run has few examples, to
compare memory with. Meanwhile it samples the memory of all processes.

The hard part is that memory, planning and reading grow with the data: every text is different, and
lengths spread as those of clinical notes do (log-normal). The program fails if they do not, if a
later run tokenizes again, if the first step comes more than a minute after the token ids, or if a
process of a later run holds ``GROWTH`` more memory of its own than with few examples. Pages of
mapped files are counted apart: the system shares them, and takes them back when it needs memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from demands import demand, demand_spread
from generation import merge_record, write_model

FILE = "large_data.json"
GROWTH = 256 * 2**20
"""Most bytes of its own memory that a process may need beyond a run with few examples."""
FIRST_STEP_SECONDS = 60
FEW = 10_000
_SITES = ["lung", "liver", "spleen", "kidney", "heart", "aorta", "pleura", "mediastinum"]
_FINDINGS = ["nodule", "cyst", "scar", "stone", "effusion", "opacity", "mass", "atelectasis"]
_PHRASES = ["is unchanged", "has grown", "is new", "is small", "measures {} mm", "was seen on {}"]
_SETTINGS = {
    "device": "cpu",
    "weights": "random",
    "train.batch_size": 8,
    "train.max_steps": 5,
    "train.eval_examples": 4,
    "train.precision": "float32",
    "greedy.max_new_tokens": 4,
    "test.examples": 4,
    "test.max_new_tokens": 4,
    "probe.training": "false",
    "probe.inference": "false",
}

# Runs a command, and writes the time of each event.
_TIMED = """
import sys, time
from harness.api.hookspecs import hookimpl
from harness.api.plugins import installed
from harness.cli.main import app

class Clock:
    def __init__(self, path):
        self.file = open(path, "w", buffering=1)
        self.write("start", 0)

    def write(self, event, number):
        print(time.time(), event, number, file=self.file)

    @hookimpl
    def phase_started(self, event):
        self.phase = event.phase
        self.write("phase-" + event.phase, 0)

    @hookimpl
    def data_read(self, event):
        self.write("data", 0)

    @hookimpl
    def step_done(self, event):
        self.write(self.phase, event.step)

installed().manager.register(Clock(sys.argv[1]))
app(sys.argv[2:])
"""


class Event(NamedTuple):
    """An event of a run: its time, its name, and its number."""

    seconds: float
    name: str
    number: int


class Memory(NamedTuple):
    """Resident memory of a process: its own, and pages of mapped files."""

    own: int
    mapped: int


def write_examples(path: Path, count: int, seed: int = 0) -> list[int]:
    """Write examples whose lengths are log-normal; return the words of the first sources."""
    rng = random.Random(seed)
    lengths = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            sentences = [
                f"The {rng.choice(_FINDINGS)} in the {rng.choice(_SITES)} "
                + rng.choice(_PHRASES).format(rng.randrange(100))
                for _ in range(max(1, round(rng.lognormvariate(2.4, 0.7))))
            ]
            source = f"Case {number}. " + ". ".join(sentences)
            target = ". ".join(sentences[: 1 + len(sentences) // 6])
            row = {"id": f"note-{number}", "source": source, "target": target}
            file.write(json.dumps(row) + "\n")
            if number < FEW:
                lengths.append(len(source.split()))
    return lengths


def write_folder(folder: Path, examples: int) -> Path:
    """Write a folder with so many training examples, and a few for eval and test."""
    folder.mkdir()
    lengths = write_examples(folder / "train.jsonl", examples)
    demand_spread(lengths, "sources")
    for seed, split in enumerate(("eval", "test"), start=1):
        write_examples(folder / f"{split}.jsonl", 100, seed)
    return folder


def memory_of(pid: int) -> Memory | None:
    """Return the resident memory of a process; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    if "RssAnon" not in kib:
        return None
    return Memory(kib["RssAnon"] * 1024, kib["RssFile"] * 1024)


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, the process first."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


class Run:
    """A run of the harness, with its events and the memory of its processes.

    Args:
        folder: a folder for its files.
        task: the folder of the examples.
        words: further words of the command.
    """

    def __init__(self, folder: Path, task: Path, *words: str) -> None:
        settings = [
            word for key, value in _SETTINGS.items() for word in ("--set", f"{key}={value}")
        ]
        out, clock = folder / f"out-{time.time_ns()}", folder / "events"
        command = [sys.executable, "-c", _TIMED, str(clock), "run", "--backbone"]
        command += [
            str(folder / "model"),
            "--compressor",
            "full",
            "--task",
            str(task),
            "--out",
            str(out),
            *settings,
        ]
        self.peaks: dict[int, Memory] = {}
        self.curve: list[tuple[float, Memory]] = []
        began = time.time()
        with subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                self._sample(process.pid, time.time() - began)
                time.sleep(0.25)
        demand(process.returncode == 0, f"harness run ended with {process.returncode}")
        lines = (line.split(" ") for line in clock.read_text().splitlines())
        self.events = [
            Event(float(words[0]) - began, " ".join(words[1:-1]), int(words[-1])) for words in lines
        ]
        self.first = process.pid

    def _sample(self, pid: int, now: float) -> None:
        for one in family(pid):
            if memory := memory_of(one):
                peak = self.peaks.get(one, Memory(0, 0))
                self.peaks[one] = Memory(*map(max, peak, memory))
                if one == pid:
                    self.curve.append((now, memory))

    @property
    def own_peak(self) -> int:
        """Peak of the first process's own memory."""
        return self.peaks[self.first].own

    def seconds(self, name: str) -> float:
        """Return the time of the first event of a name, from the start of the command on."""
        found = [event.seconds for event in self.events if event.name == name]
        demand(bool(found), f"no event {name!r}")
        return found[0]

    def works(self) -> dict[str, float]:
        """Return the seconds of reading and of tokenizing; empty if there was neither.

        The end of reading, which counts from the start of the phase, is where tokenizing begins.
        """
        loads = [event for event in self.events if event.name == "load"]
        starts = [n for n in range(1, len(loads)) if loads[n].number <= loads[n - 1].number]
        works = [loads[a:b] for a, b in zip([0, *starts], [*starts, len(loads)], strict=True)]
        large = [work for work in works if work and work[-1].number > FEW]
        demand(len(large) in (0, 2), f"{len(large)} pieces of work instead of two")
        if not large:
            return {}
        read, tokenized = large
        return {
            "read_seconds": read[-1].seconds - self.seconds("phase-load"),
            "tokenize_seconds": tokenized[-1].seconds - tokenized[0].seconds,
        }


def timeline(run: Run) -> dict[str, float]:
    """Return the seconds until the data are ready, from then to the first step, and of works."""
    ready, first = run.seconds("data"), run.seconds("train")
    return {"ready_seconds": ready, "first_step_seconds": first - ready, **run.works()}


def check(folder: Path, examples: int) -> dict[str, Any]:
    """Do all runs, and return what is to be recorded."""
    write_model(folder / "model")
    few, many = (write_folder(folder / str(n), n) for n in (FEW, examples))
    os.environ["HARNESS_CACHE"] = str(folder / "cache")
    small = Run(folder, few)
    first = Run(folder, many)
    second = Run(folder, many, "--seed", "1")
    demand(bool(first.works()) and not second.works(), "the second run tokenized again")
    two = Run(folder, many, "--nproc", "2")
    tokenizers = [peak.own for pid, peak in first.peaks.items() if pid != first.first]
    # The launcher holds no data; the two processes hold the most.
    ranks = sorted(peak.own for peak in two.peaks.values())[-2:]
    later = max(second.own_peak, *ranks)
    cache = [file for file in (folder / "cache").rglob("*") if file.is_file()]
    step = max(1, len(first.curve) // 60)
    return {
        "examples": examples,
        "data_bytes": sum(file.stat().st_size for file in many.iterdir()),
        "cache_bytes": sum(file.stat().st_size for file in cache),
        "cores": len(os.sched_getaffinity(0)),
        "first_run": timeline(first),
        "second_run": timeline(second),
        "memory": {
            "limit_bytes": GROWTH,
            "few_examples": FEW,
            "few_own_peak_bytes": small.own_peak,
            "first_own_peak_bytes": first.own_peak,
            "second_own_peak_bytes": second.own_peak,
            "two_processes_own_peak_bytes": ranks,
            "tokenizing_own_peak_bytes": sorted(tokenizers),
            "growth_bytes": max(first.own_peak, later) - small.own_peak,
            "curve": [
                {"seconds": round(at, 1), "own": memory.own, "mapped": memory.mapped}
                for at, memory in first.curve[::step]
            ],
        },
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run the check and write its record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--examples", type=int, default=1_000_000)
    options = parser.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as folder:
        values = check(Path(folder), options.examples)
    print(values["first_run"], values["second_run"])
    growth = values["memory"]["growth_bytes"]
    print(f"Own memory grows by {growth / 2**20:.0f} MiB from {FEW:,} examples on.")
    merge_record(options.out / FILE, "million", values, options.examples < 1_000_000)
    first_step = values["first_run"]["first_step_seconds"]
    if growth > GROWTH or first_step > FIRST_STEP_SECONDS:
        raise SystemExit(f"{growth / 2**20:.0f} MiB; first step after {first_step:.0f} seconds")


if __name__ == "__main__":
    main()
