"""Compare training with Seq2SeqTrainer + PEFT: python benchmarks/training.py --help.

Random weights, made-up samples of skewed lengths. Every contender trains the same samples for the
same number of steps, each window in a fresh process. A pass goes through the contenders there and
back, so that a drift of the machine meets all alike. The peer is the best setting of the trainer;
a ratio compares the harness with it within one pass. Beside it stands the ratio by processor time,
which other work on the machine leaves nearly alone. Losses of this part differ by dropout's random
numbers; the curves at its end, on the embedded task and without dropout, must not differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS, Contender, Window, run_curve, run_window
from work import Case

from harness.measurement.fingerprint import fingerprint
from harness.reporting.writing import write_text
from harness.statistics import geometric_mean_interval

FILE = "training.json"
PEERS = [c for c in CONTENDERS if not c.ours]
OURS = CONTENDERS[-1]
CURVES = [c for c in CONTENDERS if not c.grouped]
Work = Callable[[Contender, Case], Any]


def alone(work: Work, contender: Contender, case: Case) -> Any:
    """Run in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, contender, case).result()


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Run the contenders there and back; return all windows and what follows from them."""
    windows: dict[str, list[Window]] = {c.name: [] for c in CONTENDERS}
    for number in range(rounds):
        for way in (CONTENDERS, CONTENDERS[::-1]):
            for contender in way:
                first = number == 0 and way is CONTENDERS
                if contender.repeated or first:
                    windows[contender.name].append(alone(run_window, contender, case))
    return {
        **case.record(),
        **summary(windows),
        "windows": {name: [w.record() for w in those] for name, those in windows.items()},
    }


def summary(windows: dict[str, list[Window]]) -> dict[str, Any]:
    """Return medians and ratios to the best peer."""
    rates = {name: [w.tokens / w.wall for w in those] for name, those in windows.items()}
    processor = {name: [w.tokens / w.processor for w in those] for name, those in windows.items()}
    memory = {name: statistics.median(w.memory for w in ws) for name, ws in windows.items()}
    best = max((c.name for c in PEERS), key=lambda name: statistics.median(rates[name]))
    matched = [a / b for a, b in zip(rates[OURS.name], rates[best], strict=False)]
    interval = geometric_mean_interval(matched) if len(matched) > 1 else None
    return {
        "tokens_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "peak_bytes": memory,
        "peer": best,
        "speed_ratio": statistics.geometric_mean(matched),
        "speed_ratio_ci": [interval.low, interval.high] if interval else None,
        "speed_ratio_by_processor_time": statistics.median(processor[OURS.name])
        / statistics.median(processor[best]),
        "memory_ratio": memory[OURS.name] / min(memory[c.name] for c in PEERS),
    }


def curves(case: Case) -> dict[str, Any]:
    """Return the losses of 50 steps and how far each curve is from the trainer's in float32."""
    losses = {c.name: alone(run_curve, c, case) for c in CURVES}
    reference, *_ = losses.values()
    return {
        **case.record(),
        "losses": losses,
        "largest_relative_difference": {
            name: max(abs(a / b - 1) for a, b in zip(curve, reference, strict=True))
            for name, curve in losses.items()
        },
    }


def main() -> None:
    """Compare, print each case as it is done, and write all to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a smoke test: its numbers say little")
    parser.add_argument("--shapes", nargs="+", default=["t5-small", "bart-base", "nano-t5"])
    parser.add_argument("--recipes", nargs="+", default=["lora_ff", "lora_ff+lprun", "full"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a window")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="each holds two windows a contender")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full-length", action="store_true", help="nothing to gain from packing")
    parser.add_argument("--curve-steps", type=int, default=50)
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.recipes = ["nano-t5"], ["lora_ff+lprun"]
        options.batch, options.steps, options.curve_steps = 2, 1, 2
    cases = [
        Case(
            shape,
            recipe,
            options.batch,
            options.warmup,
            options.steps,
            options.threads,
            options.full_length,
        )
        for shape in options.shapes
        for recipe in options.recipes
    ]
    began = time.perf_counter()
    record: dict[str, Any] = {
        "fingerprint": fingerprint(torch.device("cpu"), torch.bfloat16, "packed").model_dump(),
        "quick": options.quick,
        "cases": [],
    }
    for case in cases:
        found = compare(case, options.rounds)
        record["cases"].append(found)
        print(
            f"{case.shape:10} {case.recipe:14} {found['speed_ratio']:.2f}x the best peer "
            f"({found['peer']}), {found['speed_ratio_by_processor_time']:.2f}x by CPU time, "
            f"{found['memory_ratio']:.2f} of its memory; {time.perf_counter() - began:.0f} s gone",
            flush=True,
        )
    nano = replace(cases[0], shape="nano-t5", recipe="lora_ff+lprun", steps=options.curve_steps)
    record["curves"] = curves(nano)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    print(f"Written: {options.out / FILE}")


if __name__ == "__main__":
    main()
