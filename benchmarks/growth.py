"""Growth of cost with the size of data and model: python benchmarks/growth.py --help.

One quantity grows at a time: source length, batch size, depth of the model, number of examples. A
point is a training step (lora_ff, packed) of a T5 with random weights, thin enough that long
sources fit everywhere. Its time is the median of some steps. Its memory is the peak of live
tensors, which does not depend on the C allocator or on earlier work of the process, as resident
memory does. For the number of examples, the time is that of all a run does once with them before
training: tokenization and the choice of batches.

The work must really grow: no source is truncated, the range is wide, and texts are all different
and vary in length. The benchmark fails otherwise.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from demands import demand, demand_spread
from transformers import PreTrainedConfig, T5Config

from harness.api.plugins import installed
from harness.backbones.nano import NanoT5
from harness.backbones.t5 import T5
from harness.data.examples import Example
from harness.data.tokenizing import tokenize
from harness.measurement.fingerprint import fingerprint
from harness.measurement.memory import peak_of_allocations
from harness.measurement.probe import freeze
from harness.records.atomic import write_text
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import ProbeSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule

FILE, CHART = "growth.json", "growth.svg"
TARGET = 64


@dataclass(frozen=True)
class Point:
    """Settings of a training step, one of which varies."""

    source: int = 256
    batch: int = 4
    depth: int = 6
    threads: int = 1


class Thin(T5):
    """A thin T5 of variable depth."""

    depth = 6

    def config(self) -> PreTrainedConfig:
        """Return the configuration, with the width of nano models."""
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
    """Return the seconds of a step, and the peak bytes of live tensors besides the weights."""
    torch.set_num_threads(point.threads)
    backbone = Thin("thin")
    backbone.depth = point.depth
    spec = RunSpec(recipe="lora_ff", weights="random", device="cpu")
    trainer = load_trainer(resolve_run(spec, backbone, installed().recipe(spec.recipe)))
    trainer.model.train()
    examples = [
        Example([3 + i % 4000 for i in range(point.source)], [7] * TARGET)
        for _ in range(point.batch)
    ]

    collated = trainer.engine.collate(examples)
    check_batch(collated.source_tokens, collated.target_tokens, point)

    def step() -> None:
        trainer.step([trainer.engine.collate(examples)], TARGET * point.batch)

    step()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), peak_of_allocations(step)


def measure_examples(count: int) -> float:
    """Return the seconds that a run spends on ``count`` examples before it trains."""
    name = "radiology_demo"
    task = installed().task(name, {})
    texts = make_texts(count)
    check_texts(texts)
    rows = Dataset.from_dict({"source": texts, "target": [text[:80] for text in texts]})
    tokenizer = NanoT5("nano-t5").tokenizer()
    began = time.perf_counter()
    split = tokenize(rows, tokenizer, task)
    freeze(Schedule(split.examples, batch_size=8, accumulation=1, seed=0), ProbeSettings())
    seconds = time.perf_counter() - began
    demand(len(split.examples) == count, f"{len(split.examples)} examples are left of {count}")
    return seconds


def make_texts(count: int) -> list[str]:
    """Return texts of 90 words on average."""
    rng = random.Random(0)
    words = ["there", "is", "a", "small", "nodule", "in", "the", "left", "lung", "today"]
    return [" ".join(rng.choices(words, k=rng.randint(20, 160))) for _ in range(count)]


def check_texts(texts: list[str]) -> None:
    """Fail if texts are equal, which a cache would save, or of one length."""
    demand(len(set(texts)) == len(texts), "texts are equal")
    demand_spread([len(text) for text in texts], "texts")


def check_batch(source_tokens: int, target_tokens: int, point: Point) -> None:
    """Fail if examples were truncated."""
    expected = point.source * point.batch, TARGET * point.batch
    demand((source_tokens, target_tokens) == expected, f"of {point} only {source_tokens} are left")


def check_axis(name: str, rows: list[dict[str, Any]], least: float) -> None:
    """Fail if the range is too narrow for an exponent, or memory does not grow.

    Args:
        name: name of the quantity that grows.
        rows: one row per point, in order.
        least: least ratio of the last to the first point.
    """
    demand(rows[-1]["at"] >= least * rows[0]["at"], f"{name} hardly grows")
    peaks = [row["bytes"] for row in rows if "bytes" in row]
    demand(peaks == sorted(set(peaks)), f"memory does not grow with {name}: {peaks}")


def exponent(rows: list[dict[str, Any]], value: str) -> float:
    """Return the slope of logarithms over the larger half, where constant costs matter least."""
    rows = rows[len(rows) // 2 - 1 :]
    x, y = (np.log([row[name] for row in rows]) for name in ("at", value))
    return float(np.polyfit(x, y, 1)[0])


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a panel for each quantity that grows; both axes are logarithmic."""
    import altair as alt  # Part of the extra html.

    panels = []
    for value, title in (("seconds", "time, s"), ("bytes", "memory, GB (live tensors)")):
        for name, axis in record["axes"].items():
            rows = [
                {"at": r["at"], "value": r[value] / (1e9 if value == "bytes" else 1)}
                for r in axis["rows"]
                if value in r
            ]
            if rows:
                growth = axis["exponents"][value]
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
    counts = [1000, 4000, 16_000, 64_000]
    if options.quick:
        steps = {name: points[:2] for name, points in steps.items()}
        counts = [500, 1000]
    axes: dict[str, Any] = {}
    for name, points in steps.items():
        rows = []
        for at, point in points:
            seconds, peak = measure_step(point)
            rows.append({"at": at, "seconds": seconds, "bytes": peak})
        axes[name] = {"rows": rows}
    rows = [{"at": count, "seconds": measure_examples(count)} for count in counts]
    axes["examples"] = {"rows": rows}
    for name, axis in axes.items():
        check_axis(name, axis["rows"], 2 if options.quick else 8)
        values = [value for value in ("seconds", "bytes") if value in axis["rows"][0]]
        axis["exponents"] = {value: exponent(axis["rows"], value) for value in values}
        print(name, {value: round(e, 2) for value, e in axis["exponents"].items()}, flush=True)
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
