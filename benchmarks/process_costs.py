"""Measure what several processes of one machine cost: bytes sent, speed, memory of each.

    python benchmarks/process_costs.py --help

The program starts one run for each recipe and number of processes, and records what the run
measured before it trained (``process_costs`` of the report): all processes together beside the
first one alone, in turns. The training itself is two steps.

The kernel counts the bytes, which do not depend on other work on the machine. Speed and efficiency
do: they say something only on a machine without other work, and on as many cores as processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from demands import demand

from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.records.run_folder import read_runs

FILE = "process_costs.json"
SETTINGS = (
    "train.max_steps=2",
    "train.eval_examples=2",
    "greedy.max_new_tokens=4",
    "test.examples=2",
    "test.beams=1",
    "test.max_new_tokens=4",
    "probe.baseline=off",
    "probe.inference=false",
)
"""Settings of a run that hardly trains."""


def measure(recipe: str, processes: int, results: Path, more: list[str]) -> dict[str, Any]:
    """Start a run of several processes, and return the costs that it measured.

    Args:
        recipe: the recipe.
        processes: the number of processes.
        results: an empty folder for the run.
        more: further settings.
    """
    words = ["--nproc", str(processes), "--compressor", recipe, "--out", str(results)]
    words += [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
    subprocess.run(
        [sys.executable, "-m", "harness", "run", *words], check=True, stdout=subprocess.DEVNULL
    )
    (run,), _ = read_runs(results)
    costs = run.report.process_costs
    assert costs is not None
    demand(costs.sent_bytes_per_step is not None, "this system does not count the bytes sent")
    return {"recipe": recipe, **costs.model_dump()}


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--compressor", default="full,lora_ff", help="default: full,lora_ff")
    parser.add_argument("--nproc", default="2,4", help="numbers of processes (default: 2,4)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for recipe in options.compressor.split(","):
        for processes in map(int, options.nproc.split(",")):
            with TemporaryDirectory() as folder:
                row = measure(recipe, processes, Path(folder), options.set)
            rows.append(row)
            sent, least = row["sent_bytes_per_step"], row["least_bytes_per_step"]
            print(
                f"{recipe}, {processes} processes: {sent / 1e6:.3f} MB in a step, "
                f"{sent / least:.3f} of the least; efficiency {row['efficiency']:.0%}",
                flush=True,
            )
    machine = fingerprint(torch.device("cpu"), torch.float32, "packed")
    record = {
        "cores": os.cpu_count(),
        "settings": [*SETTINGS, *options.set],
        "rows": rows,
        "fingerprint": machine.model_dump(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
