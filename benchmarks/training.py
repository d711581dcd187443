"""Compare training with Seq2SeqTrainer + PEFT: python benchmarks/training.py --help.

Weights are random, and synthetic samples have skewed lengths. The peer is set up as well as a good
user would. Its settings are tried in short windows, one by one, then those that helped together:
precision, grouping by length, a token-budget sampler, attention, optimizer, frozen weights in
bfloat16, torch_compile, liger. Those near the fastest are measured in long windows, in turn with
the harness and then in reverse, so that a drift of the machine affects all equally. The peer is the
fastest of them. A window represents a pass over 1,600 samples, see ``Case.batches``.

The benchmark fails if batches sorted by length have too much padding, if a contender does not train
all its tokens, and if losses differ from the trainer's on the embedded task without dropout. A peer
with different losses is shown but not compared. Each window runs in a new process. The ratio by
processor time is given too; other work on the machine hardly changes it.

Measurements are written at once; the same command resumes a stopped benchmark.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from comparison import Plan, compare, curves
from measured import Measured, is_of, start
from work import POOL, Case

from harness.api.plugins import installed
from harness.data.hashing import code_hash
from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.training.engines.attention import kernels
from harness.training.resolved_run import choose_device

FILES = {"cpu": "training.json", "cuda": "training-cuda.json"}
SHAPES = {"cpu": ["t5-small", "bart-base"], "cuda": ["t5-large", "bart-large"]}
RECIPES = {
    "cpu": ["lora_ff", "lora_ff+lprun", "full"],
    "cuda": ["full", "lprun", "lora_ff", "lora_ff+lprun"],
}

QUIET = 0.8
"""Least share of its threads' time that a window gets on an otherwise idle machine."""


def main() -> None:
    """Compare; print each finished case and write all to a file."""
    options = parse_arguments()
    device = options.device
    cases = [
        Case(
            shape,
            recipe,
            options.batch,
            options.warmup,
            options.steps,
            options.threads,
            options.full_length,
            device,
        )
        for shape in options.shapes
        for recipe in options.recipes
    ]
    nano = replace(cases[0], shape="nano-t5", recipe="lora_ff+lprun", steps=options.curve_steps)
    began = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / FILES[device]
    place, dtype = choose_device(device), torch.bfloat16
    record = start(
        file,
        {
            "fingerprint": fingerprint(place, dtype, kernels(place, dtype)).model_dump(),
            "code": code_hash(installed().manager.get_plugins()),
            "quick": options.quick,
            "pool": POOL,
            "rounds": options.rounds,
            "trial_steps": options.trial_steps,
            "compile": options.compile,
        },
    )

    def save() -> None:
        write_text(file, json.dumps(record, indent=1) + "\n")

    if not is_of(record.get("curves", {}), nano):
        record["curves"] = curves(nano)
        save()
    for case in cases:
        measurements = next((f for f in record["cases"] if is_of(f, case)), None)
        if measurements is None:
            measurements = asdict(case)
            record["cases"].append(measurements)
        if "speed_ratio" in measurements:
            print(f"{case.shape:10} {case.recipe:14} is in {file}: delete it to measure again.")
            continue
        compiled = options.compile and case.recipe == options.recipes[0]
        plan = Plan(options.trial_steps, options.rounds, compiled, record["curves"]["excluded"])
        measurements |= compare(case, plan, Measured(measurements, save))
        save()
        show(measurements, time.perf_counter() - began)
    print(f"Written: {file}")


def show(found: dict[str, Any], seconds: float) -> None:
    """Print all contenders of a case and the ratio to the best peer."""
    share = found["share_of_matrix_rate"]
    for name, tried in found["trials"].items():
        steady = found["tokens_per_s"].get(name)
        steady = f"{steady:6,.0f} in long windows" if steady else ""
        rate = tried["tokens"] / tried["wall"]
        print(f"  {name:60} {rate:6,.0f} tokens/s {share[name]:5.0%} of the matrix rate {steady}")
    for name, reason in found["skipped"].items():
        print(f"  {name:60} not tried: {reason}")
    if found["device"] == "cpu" and (busy := busiest(found)) < QUIET:
        print(f"  The machine was busy: a window had {busy:.0%} of its threads' time. Repeat this.")
    print(
        f"{found['shape']:10} {found['recipe']:14} {found['speed_ratio']:.2f}x the best peer "
        f"({found['peer']}), {found['speed_ratio_by_processor_time']:.2f}x by CPU time, "
        f"{found['memory_ratio']:.2f} of its memory; {seconds:.0f} s so far",
        flush=True,
    )


def busiest(found: dict[str, Any]) -> float:
    """Return the least share of its threads' processor time that a long window got."""
    least: float = min(
        window["processor"] / window["wall"] / found["threads"]
        for windows in found["windows"].values()
        for window in windows
    )
    return least


def parse_arguments() -> argparse.Namespace:
    """Read the command line; defaults depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: its numbers mean little"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", nargs="+", help="default: depends on the device")
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, help="timed steps of a long window; 10, on a GPU 30")
    parser.add_argument(
        "--trial-steps", type=int, help="timed steps of a short window; 3, on a GPU 15"
    )
    parser.add_argument("--warmup", type=int, help="warm-up steps of a window; 1, on a GPU 10")
    parser.add_argument(
        "--rounds", type=int, default=2, help="each round runs all in turn, then in reverse"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--full-length",
        action="store_true",
        help="examples of full length, where packing gains nothing",
    )
    parser.add_argument("--curve-steps", type=int, default=50)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="try torch_compile for the first recipe of each shape; by default on a GPU alone",
    )
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    options.shapes = options.shapes or SHAPES[device]
    options.recipes = options.recipes or RECIPES[device]
    options.steps = options.steps or (10 if device == "cpu" else 30)
    options.trial_steps = options.trial_steps or (3 if device == "cpu" else 15)
    options.warmup = options.warmup or (1 if device == "cpu" else 10)
    if options.compile is None:
        options.compile = device == "cuda"
    if options.quick:
        options.shapes, options.recipes = ["nano-t5"], ["lora_ff+lprun"]
        options.batch, options.steps, options.curve_steps, options.rounds = 2, 5, 2, 1
    return options


if __name__ == "__main__":
    main()
