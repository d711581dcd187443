"""Time ``harness report`` over many runs, each call in a process of its own.

    python benchmarks/reports.py [--runs 10000] [--repeats 5]

The runs are made up: reports only, three seeds a recipe, 20 recipes on each backbone and task.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.reporting.folder import REPORT
from harness.reporting.report import Report

SEEDS, RECIPES = 3, 20


def main() -> None:
    """Make the folder, call the command, print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        for number in range(arguments.runs):
            write_run(results, number)
        for form in ("table", "json"):
            command = [sys.executable, "-m", "harness", "report", folder, "--format", form]
            seconds = []
            for _ in range(arguments.repeats + 1):
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - began)
            first, *later = seconds
            middle = statistics.median(later)
            print(f"{form:6} {arguments.runs} runs: {first:.2f} s, then {middle:.2f} s (median)")


def write_run(results: Path, number: int) -> None:
    """Write the report of a made-up run."""
    cell, seed = divmod(number, SEEDS)
    group, recipe = divmod(cell, RECIPES)
    rng = random.Random(number)
    speed = rng.uniform(1, 2.5)
    report = Report.model_validate(
        {
            "id": f"run{number:05}",
            "status": "ok",
            "backbone": f"backbone-{group % 7}",
            "recipe": "full" if recipe == 0 else f"lora_ff:r={recipe}",
            "task": f"task-{group // 7}",
            "seed": seed,
            "started": "2025-01-01T00:00:00+00:00",
            "seconds": 100,
            "parameters": {
                "original": 1000,
                "total": 1000,
                "trainable": 10 * (recipe + 1),
                "trainable_pct_of_original": recipe + 1,
                "trainable_pct_of_total": recipe + 1,
            },
            "speed": {
                "tokens_per_s": 1000 * speed,
                "samples_per_s": 10 * speed,
                "relative": speed,
                "relative_ci": [0.97 * speed, 1.03 * speed],
                "noise_floor": 1.02,
                "baseline": "probe",
                "engine": "packed",
                "schedule_sha256": "0" * 64,
                "window_seconds": [1.0] * 12,
            },
            "memory": {"peak_bytes": rng.randrange(10**9, 10**10), "static_bytes": 10**9},
            "quality": {
                name: {
                    "value": value,
                    "ci": [value - 1, value + 1],
                    "signature": f"{name}|aggregate:mean|rouge-score:0.1.2",
                    "higher_is_better": True,
                }
                for name in ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "bertscore")
                for value in [rng.uniform(20, 40)]
            },
        }
    )
    folder = results / report.id
    folder.mkdir()
    (folder / REPORT).write_text(json.dumps(report.model_dump(mode="json"), indent=2))


if __name__ == "__main__":
    main()
