"""How cost grows with what grows: python benchmarks/growth.py --help.

One thing at a time: source length, batch size, depth of the model, number of examples. A point is
a training step (lora_ff, packed, a T5 of random weights, thin so that long sources fit everywhere):
the median of some steps, and the peak of live tensors, which unlike resident memory does not depend
on the C allocator, nor on what the process did before. For the number of examples it is the time of
what a run does once with all of them, before training: tokenization and the choice of batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedConfig, T5Config

from harness.backbones.nano import NanoT5
from harness.backbones.t5 import T5
from harness.measurement.fingerprint import fingerprint
from harness.measurement.memory import peak_of_allocations
from harness.measurement.probe import freeze
from harness.plugins import installed
from harness.recipe import parse
from harness.reporting.writing import write_text
from harness.spec import ProbeSettings, RunSpec
from harness.training.examples import Example, tokenize
from harness.training.schedule import Schedule
from harness.training.trainee import prepare

FILE, CHART = "growth.json", "growth.svg"
TARGET = 64


@dataclass(frozen=True)
class Point:
    """A training step: what is varied, and what is not."""

    source: int = 256
    batch: int = 4
    depth: int = 6
    threads: int = 1


class Thin(T5):
    """A T5 of some depth."""

    depth = 6

    def config(self) -> PreTrainedConfig:
        """Return a shape whose width is that of nano models."""
        return T5Config(
            vocab_size=8192,
            d_model=128,
            d_kv=32,
            d_ff=512,
            num_heads=4,
            num_layers=self.depth,
            decoder_start_token_id=0,
        )


def measure_step(point: Point) -> tuple[float, int]:
    """Return the seconds of a step and the peak of live tensors in bytes, beside the weights."""
    torch.set_num_threads(point.threads)
    backbone = Thin("thin")
    backbone.depth = point.depth
    spec = RunSpec(recipe="lora_ff", weights="random", device="cpu")
    trainee = prepare(backbone, parse(spec.recipe, installed().compressors), spec)
    trainee.model.train()
    examples = [
        Example([3 + i % 4000 for i in range(point.source)], [7] * TARGET)
        for _ in range(point.batch)
    ]

    def step() -> None:
        trainee.step([trainee.engine.collate(examples)], TARGET * point.batch)

    step()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), peak_of_allocations(step)


def measure_examples(count: int) -> float:
    """Return the seconds that a run spends on so many examples before it trains."""
    name = "radiology_demo"
    task_class = installed().tasks.find(name).load()
    task = task_class(name, task_class.Options())
    words = ["there", "is", "a", "small", "nodule", "in", "the", "left", "lung", "today"]
    texts = [" ".join(words[(i + k) % len(words)] for k in range(90)) for i in range(count)]
    rows = Dataset.from_dict({"source": texts, "target": [text[:80] for text in texts]})
    tokenizer = NanoT5("nano-t5").tokenizer()
    began = time.perf_counter()
    split = tokenize(rows, tokenizer, task)
    freeze(Schedule(split.examples, batch_size=8, accumulation=1, seed=0), ProbeSettings())
    return time.perf_counter() - began


def exponent(rows: list[dict[str, Any]], value: str) -> float:
    """Return the slope in logarithms over the larger half, where constant costs weigh least."""
    rows = rows[len(rows) // 2 - 1 :]
    x, y = (np.log([row[name] for row in rows]) for name in ("at", value))
    return float(np.polyfit(x, y, 1)[0])


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a panel for each thing that grows, both axes logarithmic."""
    import altair as alt  # The extra html.

    panels = []
    for value, title in (("seconds", "time, s"), ("bytes", "memory, GB (live tensors)")):
        for name, found in record["axes"].items():
            rows = [
                {"at": r["at"], "value": r[value] / (1e9 if value == "bytes" else 1)}
                for r in found["rows"]
                if value in r
            ]
            if rows:
                growth = found["exponents"][value]
                panels.append(
                    alt.Chart(alt.Data(values=rows), title=f"{name}: exponent {growth:.2f}")
                    .mark_line(point=True)
                    .encode(
                        x=alt.X("at:Q", title=name, scale=alt.Scale(type="log", nice=False)),
                        y=alt.Y("value:Q", title=title, scale=alt.Scale(type="log", nice=False)),
                    )
                    .properties(width=220, height=160)
                )
    alt.concat(*panels, columns=4).save(str(path))


def main() -> None:
    """Measure, print the exponents, write the numbers and the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a smoke test: its numbers say little")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    threads = options.threads
    steps: dict[str, list[tuple[int, Point]]] = {
        "source tokens": [
            (n, Point(source=n, threads=threads)) for n in (128, 256, 512, 1024, 2048, 4096)
        ],
        "batch size": [(n, Point(batch=n, threads=threads)) for n in (1, 2, 4, 8, 16, 32)],
        "layers a stack": [(n, Point(depth=n, threads=threads)) for n in (2, 4, 8, 16)],
    }
    counts = (1000, 4000, 16_000, 64_000)
    if options.quick:
        steps = {name: points[:2] for name, points in steps.items()}
        counts = (500, 1000)
    axes: dict[str, Any] = {}
    for name, points in steps.items():
        rows = []
        for at, point in points:
            seconds, peak = measure_step(point)
            rows.append({"at": at, "seconds": seconds, "bytes": peak})
        axes[name] = {"rows": rows}
    rows = [{"at": count, "seconds": measure_examples(count)} for count in counts]
    axes["examples"] = {"rows": rows}
    for name, found in axes.items():
        values = [value for value in ("seconds", "bytes") if value in found["rows"][0]]
        found["exponents"] = {value: exponent(found["rows"], value) for value in values}
        print(name, {value: round(e, 2) for value, e in found["exponents"].items()}, flush=True)
    record = {
        "fingerprint": fingerprint(torch.device("cpu"), torch.bfloat16, "packed").model_dump(),
        "quick": options.quick,
        "axes": axes,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    draw(record, options.out / CHART)
    print(f"Written: {options.out / FILE}, {options.out / CHART}")


if __name__ == "__main__":
    main()
