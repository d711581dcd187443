"""Training steps with layers compiled by torch.compile, against the same without: --help.

The harness compiles as with ``train.engine=compiled``, in two fresh processes that share a new
folder of compiled kernels: the first compiles everything, the second finds the kernels there. The
second then takes steps with and without compiled layers on equal batches, A B B A, in windows.
Speed is the ratio of their times, by the clock and by the process's CPU time. Other work on the
machine disturbs the first more than the second.

The layers must really be compiled, and only before the windows: the benchmark fails if the engine
fell back, or if a graph was compiled within a window. It fails if batches do not differ in length.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from demands import demand, demand_spread
from work import Case, make_examples

from harness.data.examples import Example
from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.spec.run_spec import RunSpec
from harness.statistics.intervals import geometric_mean_interval
from harness.training.build import load_trainer
from harness.training.compiling import compile_ahead
from harness.training.engines.attention import PACKED
from harness.training.engines.compiled_layers import graphs_compiled
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step
from harness.training.trainer import Trainer

FILE = "compiled_layers.json"
CASES = (
    ("t5-small", "lora_ff", "bfloat16"),
    ("t5-small", "full", "bfloat16"),
    ("bart-base", "lora_ff", "bfloat16"),
)
BATCH = 8


def new_trainer(case: Case, precision: str, engine: str) -> Trainer:
    """Return a trainer with weights that depend on the case only."""
    spec = RunSpec.model_validate(
        {
            "backbone": case.shape,
            "recipe": case.recipe,
            "weights": "random",
            "device": case.device,
            "train": {"precision": precision, "engine": engine},
        }
    )
    trainer = load_trainer(resolve_run(spec, case.backbone, case.parsed))
    trainer.model.train()
    return trainer


class Times(NamedTuple):
    """Seconds of a window.

    Attributes:
        wall: by the clock.
        processor: of all threads of this process.
    """

    wall: float
    processor: float


def window(trainer: Trainer, batches: Sequence[Sequence[Example]]) -> Times:
    """Take a step on each batch and return the seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    for examples in batches:
        batch = trainer.engine.collate(examples)
        trainer.step([batch], batch.target_tokens)
    return Times(time.perf_counter() - wall, time.process_time() - processor)


def compiled_trainer(case: Case, precision: str, first: Sequence[Example]) -> Trainer:
    """Return a trainer whose layers are compiled."""
    trainer = new_trainer(case, precision, "compiled")
    compile_ahead(trainer, Step((tuple(first),)))
    demand(trainer.engine_name.endswith("compiled layers"), trainer.engine_name)
    return trainer


def measure(case: Case, precision: str, rounds: int, only_compile: bool) -> dict[str, Any]:
    """Compile in this process and return the seconds; also time steps, unless told otherwise."""
    examples = make_examples(BATCH * case.steps, case.backbone.config().vocab_size, False)
    batches = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
    demand_spread([len(e.source) for e in examples], "sources")
    compiled = compiled_trainer(case, precision, batches[0])
    layers = compiled.engine.compiled
    assert layers is not None
    found = {"compile_seconds": layers.seconds, "graphs": graphs_compiled()}
    if only_compile:
        return found
    plain = new_trainer(case, precision, "packed")
    window(plain, batches[:1])
    window(compiled, batches[:1])
    pairs: list[tuple[Times, Times]] = []
    for _ in range(rounds):
        a, b, c, d = (window(t, batches) for t in (plain, compiled, compiled, plain))
        pairs += [(a, b), (d, c)]
    demand(graphs_compiled() == found["graphs"], "graphs were compiled in a window")
    wall = geometric_mean_interval([a.wall / b.wall for a, b in pairs])
    processor = geometric_mean_interval([a.processor / b.processor for a, b in pairs])
    return {
        **found,
        "windows": [[*a, *b] for a, b in pairs],
        "speed_ratio": wall.value,
        "speed_ratio_ci": [wall.low, wall.high],
        "processor_ratio": processor.value,
        "processor_ratio_ci": [processor.low, processor.high],
    }


def in_new_process(arguments: Sequence[str], folder: str) -> dict[str, Any]:
    """Run this program for one case, with a folder for compiled kernels."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    demand(done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--steps", type=int, default=4, help="steps of a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first N cases")
    parser.add_argument("--case", type=int, help="measure this case in this process")
    parser.add_argument("--only-compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case is not None:
        shape, recipe, precision = CASES[options.case]
        case = Case(shape, recipe, BATCH, 0, options.steps, options.threads)
        print(json.dumps(measure(case, precision, options.rounds, options.only_compile)))
        return
    rows = []
    common = [f"--{name}={getattr(options, name)}" for name in ("steps", "rounds", "threads")]
    for number, (shape, recipe, precision) in enumerate(CASES[: options.cases]):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [*common, f"--case={number}"]
            first = in_new_process([*arguments, "--only-compile"], folder)
            found = in_new_process(arguments, folder)
        found["compile_seconds_again"] = found.pop("compile_seconds")
        named = {"shape": shape, "recipe": recipe, "precision": precision}
        rows.append({**named, "compile_seconds": first["compile_seconds"], **found})
        print(json.dumps(rows[-1]), flush=True)
    machine = fingerprint(torch.device("cpu"), torch.bfloat16, PACKED).model_dump()
    settings = {name: getattr(options, name) for name in ("steps", "rounds", "threads")}
    record = {**settings, "fingerprint": machine, "cases": rows}
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
