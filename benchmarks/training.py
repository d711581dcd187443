"""Compare training with Seq2SeqTrainer + PEFT: python benchmarks/training.py --help.

Random weights, made-up samples of skewed lengths. The hard part is the peer that groups by length,
so that it pads little: its batches are every fifth of a mega-batch, as its own sampler sorts it in
a pool of 1,600 samples. The benchmark fails where less than 0.7 of its tokens are real, or where
contenders train other tokens. Each window runs in a fresh process.

Passes go through the contenders there and
back, so that a drift of the machine meets all alike; after the first one those take part that it
left in the running. The peer is the best setting of the trainer; a ratio compares the harness, in
the precision that it chooses by itself, with it within one pass. Beside it stands the ratio by
processor time, which other work on the machine leaves nearly alone. Losses of this part differ by
dropout's random numbers; the curves at its end, on the embedded task and without dropout, must not
differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from clock import Window, in_the_running, matrix_rate
from contenders import CONTENDERS, Contender, run_curve, run_window
from work import POOL, Case

from harness.composition import compose
from harness.flops import flop_limit, training_flops
from harness.hashing import code_hash
from harness.measurement.fingerprint import fingerprint
from harness.plugins import installed
from harness.reporting.writing import write_text
from harness.statistics import geometric_mean_interval
from harness.training.attention import kernels
from harness.training.trainee import choose_device, choose_dtype

FILES = {"cpu": "training.json", "cuda": "training-cuda.json"}
SHAPES = {"cpu": ["t5-small", "bart-base"], "cuda": ["t5-large", "bart-large"]}
RECIPES = {
    "cpu": ["lora_ff", "lora_ff+lprun", "full"],
    "cuda": ["full", "lprun", "lora_ff", "lora_ff+lprun"],
}
CURVES = [c for c in CONTENDERS if not c.grouped]

CLOSENESS = {"float32": 1e-4, "bfloat16": 1e-2}  # of losses, relative to the trainer's in float32


def alone(work: Callable[..., Any], *arguments: object) -> Any:
    """Run in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def taking_part(case: Case) -> list[Contender]:
    """Return who takes part: on a GPU nobody would pick float32."""
    return [c for c in CONTENDERS if case.device == "cpu" or c.dtype == "bfloat16"]


def default(case: Case) -> Contender:
    """Return the harness in the precision that it chooses by itself."""
    chosen = choose_dtype("auto", torch.device(case.device), case.backbone)
    ours = {getattr(torch, c.dtype): c for c in CONTENDERS if c.ours}
    return ours[chosen]


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Run the contenders there and back; return all windows and what follows from them."""
    case.check()
    those, ours = taking_part(case), default(case)
    windows: dict[str, list[Window]] = {c.name: [] for c in those}

    def measure(contenders: Iterable[Contender]) -> None:
        for contender in contenders:
            windows[contender.name].append(alone(run_window, contender, case))

    measure(those)
    if len({windows[c.name][0].tokens for c in those}) > 1:
        raise SystemExit("degenerate: the contenders did not train the same tokens")
    rates = {c.name: windows[c.name][0].tokens / windows[c.name][0].wall for c in those}
    peers = in_the_running({c.name: rates[c.name] for c in those if not c.ours})
    left = [c for c in those if c == ours or c.name in peers]
    measure(reversed(left))
    for _ in range(rounds - 1):
        measure(left)
        measure(reversed(left))
    return {
        **case.record(),
        **summary(windows, ours.name),
        "windows": {name: [w.record() for w in ws] for name, ws in windows.items()},
    }


def summary(windows: dict[str, list[Window]], ours: str) -> dict[str, Any]:
    """Return medians and one contender's ratios to the best peer."""
    rates = {name: [w.tokens / w.wall for w in those] for name, those in windows.items()}
    processor = {name: [w.tokens / w.processor for w in those] for name, those in windows.items()}
    memory = {name: statistics.median(w.memory for w in ws) for name, ws in windows.items()}
    peers = [c.name for c in CONTENDERS if not c.ours and c.name in windows]
    best = max(peers, key=lambda name: statistics.median(rates[name]))
    matched = [a / b for a, b in zip(rates[ours], rates[best], strict=False)]
    interval = geometric_mean_interval(matched) if len(matched) > 1 else None
    return {
        "tokens_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "peak_bytes": memory,
        "ours": ours,
        "peer": best,
        "speed_ratio": statistics.geometric_mean(matched),
        "speed_ratio_ci": [interval.low, interval.high] if interval else None,
        "speed_ratio_by_processor_time": statistics.median(processor[ours])
        / statistics.median(processor[best]),
        "memory_ratio": memory[ours] / min(memory[name] for name in peers),
    }


def set_beside_limits(found: dict[str, Any], case: Case, rate: float, full: Any) -> None:
    """Add to a case what its matrix products alone would allow.

    Args:
        found: of the case.
        case: says on what.
        rate: of matrix products that the card reaches, operations a second.
        full: what was found for full fine-tuning of the same shape; None if it was not measured.
    """
    source, target = round(found["mean_source_tokens"]), round(found["mean_target_tokens"])
    model = compose(case.backbone.skeleton(), case.backbone, case.parsed)
    flops = training_flops(model, source, target).total / (source + target)
    speeds = found["tokens_per_s"]
    found["share_of_matrix_rate"] = {name: flops * s / rate for name, s in speeds.items()}
    if full is not None:
        found["flop_limit"] = flop_limit(case.backbone, case.parsed, source, target)
        found["relative_speed"] = {
            name: s / full["tokens_per_s"][name] for name, s in speeds.items()
        }


def curves(case: Case) -> dict[str, Any]:
    """Return the losses of 50 steps and how far each curve is from the trainer's in float32."""
    losses = {c.name: alone(run_curve, c, case) for c in CURVES}
    reference, *_ = losses.values()
    differences = {
        name: max(abs(a / b - 1) for a, b in zip(curve, reference, strict=True))
        for name, curve in losses.items()
    }
    for contender in CURVES:
        if not differences[contender.name] <= CLOSENESS[contender.dtype]:
            raise SystemExit(f"degenerate: {contender.name} trains to other losses: {differences}")
    return {
        **case.record(),
        "losses": losses,
        "largest_relative_difference": differences,
    }


def is_of(found: dict[str, Any], case: Case) -> bool:
    """Whether this was found for a case."""
    return all(found.get(key) == value for key, value in asdict(case).items())


def earlier(file: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier call found with the same code in the same way on the same machine."""
    if file.is_file():
        before: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if all(_comparable(before, key) == _comparable(record, key) for key in record):
            return before
        print(f"{file} was measured otherwise (machine, versions, settings) and is replaced.")
    return {**record, "cases": []}


def _comparable(record: dict[str, Any], key: str) -> Any:
    value = record.get(key)
    # The commit says nothing that the code's hash does not, and changes with any other file.
    return {**value, "git": None} if key == "fingerprint" and value else value


def main() -> None:
    """Compare, print each case as it is done, and write all to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a smoke test: its numbers say little")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", nargs="+", help="by default those that suit the device")
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, help="timed steps of a window; 10, on a GPU 30")
    parser.add_argument("--warmup", type=int, help="steps before them; 1, on a GPU 10")
    parser.add_argument("--rounds", type=int, default=2, help="each there and back")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full-length", action="store_true", help="nothing to gain from packing")
    parser.add_argument("--curve-steps", type=int, default=50)
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    options.shapes = options.shapes or SHAPES[device]
    options.recipes = options.recipes or RECIPES[device]
    options.steps = options.steps or (10 if device == "cpu" else 30)
    options.warmup = options.warmup or (1 if device == "cpu" else 10)
    if options.quick:
        options.shapes, options.recipes = ["nano-t5"], ["lora_ff+lprun"]
        options.batch, options.steps, options.curve_steps, options.rounds = 2, 5, 2, 1
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
    settings = {
        "fingerprint": fingerprint(place, dtype, kernels(place, dtype)).model_dump(),
        "code": code_hash(installed().manager.get_plugins()),
        "quick": options.quick,
        "pool": POOL,
        "rounds": options.rounds,
    }
    record = earlier(file, settings)
    if device == "cuda" and "matrix_rate" not in record:
        record["matrix_rate"] = alone(matrix_rate)
    for case in cases:
        if any(is_of(found, case) for found in record["cases"]):
            print(f"{case.shape:10} {case.recipe:14} is in {file}: delete it to measure again.")
            continue
        found = compare(case, options.rounds)
        if device == "cuda":
            whole = replace(case, recipe="full")
            full = next((f for f in [*record["cases"], found] if is_of(f, whole)), None)
            set_beside_limits(found, case, record["matrix_rate"], full)
        record["cases"].append(found)
        write_text(file, json.dumps(record, indent=1) + "\n")
        print(
            f"{case.shape:10} {case.recipe:14} {found['speed_ratio']:.2f}x the best peer "
            f"({found['peer']}), {found['speed_ratio_by_processor_time']:.2f}x by CPU time, "
            f"{found['memory_ratio']:.2f} of its memory; {time.perf_counter() - began:.0f} s gone",
            flush=True,
        )
    if not is_of(record.get("curves", {}), nano):
        record["curves"] = curves(nano)
        write_text(file, json.dumps(record, indent=1) + "\n")
    print(f"Written: {file}")


if __name__ == "__main__":
    main()
