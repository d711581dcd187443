"""Estimated memory beside measured memory: python benchmarks/prediction.py --help.

For each backbone, with random weights, and each recipe, it compares the estimate of `harness plan`
with the measurement of `harness profile`. Batches have a task's typical lengths, and each recipe is
measured in a process of its own. Two numbers are compared: the peak bytes in tensors, and the peak
resident bytes of the process. It fails if one of them is further off than the tolerance.

The memory that a step needs beside the weights is hard to estimate. The comparison therefore also
fails if all batches have the same length, if a step needs little more memory than it begins with,
or if all recipes need the same memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from demands import demand, demand_spread

from harness.api.plugins import installed
from harness.costs.batches import choose_batches, profile_spec
from harness.costs.data_choice import DataChoice
from harness.costs.memory_estimate import estimate_memory, process_bytes
from harness.measurement.fingerprint import fingerprint
from harness.measurement.probe import measure_memory_of
from harness.model.composition import compose
from harness.records.atomic import write_text
from harness.training.resolved_run import choose_dtype, resolve_run

FILE = "prediction.json"
RECIPES = ["full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun"]


def compare(name: str, recipes: list[str], task_name: str, batch: int) -> Iterator[dict[str, Any]]:
    """Yield the estimated and the measured memory of each recipe, in bytes."""
    plugins = installed()
    backbone = plugins.backbone(name)
    spec = profile_spec(name, task_name, {"device": "cpu", "train.batch_size": batch})
    frozen = choose_batches(
        spec, backbone, plugins.task(spec.task, spec.task_options), DataChoice.LENGTHS
    ).frozen
    lengths = [len(e.source) for s in frozen.steps for batch in s.micro_batches for e in batch]
    demand_spread(lengths, "sources")
    for text in recipes:
        recipe = plugins.recipe(text)
        skeleton = compose(backbone.skeleton(), backbone, recipe)
        estimate = estimate_memory(resolve_run(spec, backbone, recipe), skeleton, frozen.longest)
        memory = measure_memory_of(spec.model_copy(update={"recipe": str(recipe)}), frozen)
        assert memory.tensor_bytes
        assert memory.parts
        check_step(text, memory.tensor_bytes, memory.parts.weights + memory.parts.optimizer)
        yield {
            "backbone": name,
            "recipe": text,
            "dtype": estimate.dtype,
            "engine": estimate.engine,
            "tensor_bytes": {"predicted": estimate.tensor_bytes, "measured": memory.tensor_bytes},
            "peak_bytes": {"predicted": estimate.peak_bytes, "measured": memory.peak_bytes},
        }


def check_step(recipe: str, peak: int, held: int) -> None:
    """Fail if a step needs little memory beside that held between steps, which is easy to estimate.

    Args:
        recipe: the recipe, which the error names.
        peak: bytes in tensors at the peak.
        held: bytes of the weights and of the optimizer's state.
    """
    demand(peak > 1.2 * held, f"a step of {recipe} needs {peak / held:.2f} of what it begins with")


def check_recipes(measured: Mapping[str, int]) -> None:
    """Fail if the recipes do not differ in memory.

    Args:
        measured: the peak bytes of each recipe; a single recipe is not compared.
    """
    least, most = min(measured.values()), max(measured.values())
    demand(len(measured) == 1 or most > 1.05 * least, "all recipes need the same memory")


def main() -> int:
    """Compare all recipes, print each row, write all rows to a file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--backbones", nargs="+", default=["nano-t5", "t5-small"])
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--task", default="radiology_demo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tolerance", type=float, default=0.2, help="largest relative error")
    options = parser.parse_args()
    process_bytes()  # Called before data are read, which it would count otherwise.
    rows, worst = [], 0.0
    print(f"{'MiB: estimated, measured, ratio':31} {'in tensors':>22} {'resident':>22}")
    for name in options.backbones:
        for row in compare(name, options.recipes, options.task, options.batch):
            rows.append(row)
            cells = []
            for kind in ("tensor_bytes", "peak_bytes"):
                estimated, measured = row[kind]["predicted"], row[kind]["measured"]
                ratio = row[kind]["ratio"] = estimated / measured
                worst = max(worst, abs(ratio - 1))
                cells.append(f"{estimated / 2**20:8.0f} {measured / 2**20:8.0f} {ratio:4.2f}")
            print(f"{name:12} {row['recipe']:18}", *cells, flush=True)
        own_rows = (row for row in rows if row["backbone"] == name)
        check_recipes({row["recipe"]: row["tensor_bytes"]["measured"] for row in own_rows})
    cpu = torch.device("cpu")
    nano = installed().backbone("nano-t5")
    dtype = choose_dtype("auto", cpu, nano)
    record = {
        "fingerprint": fingerprint(cpu, dtype, "packed").model_dump(),
        "tolerance": options.tolerance,
        "worst": worst,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    print(f"At most {100 * worst:.1f} % off. Written: {options.out / FILE}")
    return int(worst > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
