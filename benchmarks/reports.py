"""Time ``harness report`` over many runs with predictions; each call is a new process.

    python benchmarks/reports.py [--shape sweeps,examples,archive] [--repeats 3]

The expensive part of the first call is the comparison. It reads every prediction, recomputes BLEU
and its precisions from the texts, scores the lead baseline, and bootstraps each group. The
benchmark therefore gives every run its own predictions of different lengths, scored by the built-in
ROUGE and BLEU. No comparison is cached before the first call; later calls must find the cache. The
program fails if one of these conditions does not hold.
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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

from demands import demand, demand_spread

from harness.api.metric import Score
from harness.records.atomic import write_lines
from harness.records.report import Report
from harness.records.run_folder import PREDICTIONS, REPORT
from harness.reporting.paired_comparison import CACHE
from harness.reporting.summary import Summary
from tasks.metrics.bleu import Bleu
from tasks.metrics.rouge import Rouge

RECIPES = {"full": 0.8, "lprun": 0.78, "lora_qv": 0.6, "lora_qv+lprun": 0.5, "lora_ff": 0.65}
RECIPES["lora_ff+lprun"] = 0.63
"""Recipe -> probability that a word of a prediction is right."""
SEEDS = 3
BACKBONES = 7
SOURCE, REFERENCE = 60, 12
"""Words of a source and of a reference."""
WORDS = [
    f"{first}{last}" for first in ("ren", "pulm", "hep") for last in ("al", "ar", "ic", "itis")
]
WORDS += ["the", "of", "no", "in", "is", "left", "right", "small", "new", "seen", "mass", "chronic"]


class Shape(NamedTuple):
    """Number of groups (six recipes, three seeds each), test examples of a run, and goals."""

    groups: int
    examples: int
    first_goal: float | None
    later_goal: float

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return self.groups * len(RECIPES) * SEEDS


SHAPES = {
    "sweeps": Shape(56, 100, first_goal=10, later_goal=3),
    "examples": Shape(1, 2000, first_goal=60, later_goal=3),
    "archive": Shape(556, 10, first_goal=None, later_goal=3),
}


def main() -> None:
    """Write the runs, time the command, print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default=",".join(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.shape.split(","):
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder)
            cells = list(product(range(shape.groups), [shape.examples], [results]))
            with ProcessPoolExecutor() as pool:
                list(pool.map(write_group, *zip(*cells, strict=True)))
            check_input(results, shape)
            first, *later = time_calls(results, arguments.repeats)
        middle = statistics.median(later)
        print(
            f"{name:8} {shape.runs:6,} runs x {shape.examples:5,} examples: "
            f"{first:.2f} s{_goal(first, shape.first_goal)}, "
            f"then {middle:.2f} s{_goal(middle, shape.later_goal)}"
        )


def time_calls(results: Path, repeats: int) -> Iterator[float]:
    """Yield the seconds of the first call, then of ``repeats`` further calls."""
    command = [sys.executable, "-m", "harness", "report", str(results)]
    for call in range(repeats + 1):
        is_cached = (results / CACHE).exists()
        demand(is_cached == bool(call), f"before call {call} comparisons are kept: {is_cached}")
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield time.perf_counter() - began
    shown = subprocess.run([*command, "--format", "json"], check=True, capture_output=True)
    groups = Summary.model_validate_json(shown.stdout).groups
    rows = [row for group in groups for row in group.rows if row.recipe != "full"]
    for row in rows:
        compared = all(quality.difference for quality in row.quality.values())
        demand(compared, f"{row.recipe} was not compared: {row.not_compared or row.missing}")


def check_input(results: Path, shape: Shape) -> None:
    """Fail unless every run has the requested number of predictions, different from other runs'."""
    files = sorted(results.glob(f"*/{PREDICTIONS}"))
    texts = [path.read_bytes() for path in files]
    distinct = len(set(texts))
    demand(
        len(files) == shape.runs == distinct, f"{len(files)} runs predicted, {distinct} distinct"
    )
    complete = all(text.count(b"\n") == shape.examples for text in texts)
    demand(complete, f"not every run has {shape.examples} predictions")
    rows = [json.loads(line) for text in texts for line in text.splitlines()[:20]]
    demand_spread([len(row["prediction"].split()) for row in rows], "predictions")


def write_group(group: int, examples: int, results: Path) -> None:
    """Write the runs of all recipes and seeds for one backbone and task."""
    task, backbone = divmod(group, BACKBONES)
    rng = random.Random(task)
    sources = [rng.choices(WORDS, k=SOURCE) for _ in range(examples)]
    references = [[*rng.choices(source[:20], k=4), *rng.choices(WORDS, k=8)] for source in sources]
    for recipe, seed in product(RECIPES, range(SEEDS)):
        rng = random.Random(f"{group} {recipe} {seed}")
        predictions = [
            [
                word if rng.random() < RECIPES[recipe] else rng.choice(WORDS)
                for word in reference[: rng.randint(6, len(reference))]
            ]
            for reference in references
        ]
        texts = [[" ".join(words) for words in column] for column in (sources, predictions)]
        columns = (*texts, [" ".join(words) for words in references])
        scores = Rouge().score(*columns) | Bleu().score(*columns)
        report = make_report(f"backbone-{backbone}", f"task-{task}", recipe, seed, scores)
        folder = results / report.id
        folder.mkdir()
        (folder / REPORT).write_text(report.model_dump_json(indent=2))
        write_lines(
            folder / PREDICTIONS,
            (
                {
                    "id": f"test-{at:05}",
                    **dict(zip(("source", "prediction", "reference"), row, strict=True)),
                    "scores": {
                        name: round(score.examples[at], 4) for name, score in scores.items()
                    },
                }
                for at, row in enumerate(zip(*columns, strict=True))
            ),
        )


def make_report(
    backbone: str, task: str, recipe: str, seed: int, scores: dict[str, Score]
) -> Report:
    """Return a synthetic report of a run with these scores."""
    speed = random.Random(f"{backbone} {task} {recipe} {seed}").uniform(1, 2.5)
    examples = len(next(iter(scores.values())).examples)
    return Report.model_validate(
        {
            "id": f"{backbone}-{recipe}-{task}-s{seed}",
            "status": "ok",
            "backbone": backbone,
            "recipe": recipe,
            "task": task,
            "seed": seed,
            "started": "2025-01-01T00:00:00+00:00",
            "seconds": 100,
            "decoding": "beam_search|beams:6",
            "data": {
                "train": 1000,
                "eval": 100,
                "test": examples,
                "skipped": {},
                "cut_sources": 0,
                "cut_targets": 0,
                "sha256": task,
            },
            "parameters": {
                "original": 1000,
                "total": 1000,
                "trainable": 10,
                "trainable_pct_of_original": 1,
                "trainable_pct_of_total": 1,
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
            "memory": {"peak_bytes": round(speed * 10**9), "static_bytes": 10**9},
            "quality": {
                name: {
                    "value": score.value,
                    "ci": [score.value - 1, score.value + 1],
                    "signature": score.signature,
                    "higher_is_better": True,
                }
                for name, score in scores.items()
            },
        }
    )


def _goal(seconds: float, goal: float | None) -> str:
    if goal is None:
        return ""
    return f" (goal {goal:g} s: {'reached' if seconds < goal else 'missed'})"


if __name__ == "__main__":
    main()
