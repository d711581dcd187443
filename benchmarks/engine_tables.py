"""Sections of the page on performance about engines: compiled layers, loss curves, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMPILED = "compiled_layers.json"
CURVES = "loss_curves.json"
_COMPILED = """
### Compiled layers

`python benchmarks/compiled_layers.py` compares `train.engine=compiled` with the engine that is
chosen by itself. More than 1 is a gain. *By CPU time* is less disturbed by other work on the
machine. *Again* is the time that a later process takes, which finds the kernels in their folder.

| shape | recipe | precision | speed | by CPU time | graphs | compilation | again |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_LOSS_CURVES = """
## Loss curves

`python benchmarks/loss_curves.py` trains tiny models for {steps} steps by the packed engine and by
padded batches. *Recorded* steps are replayed as a CUDA graph would replay them, by a CPU. Without
dropout, each column is the largest relative difference of any step's loss. With dropout, losses of
the last half of the steps are averaged over {seeds} seeds: the difference of the engines, beside
what chance explains, and the effect of dropout itself. {verdict}

| family | recipe | loss | packed | recorded | with dropout | chance | effect of dropout |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_NOT_PROVEN = """
## Not proven

- Packed steps, recorded steps and the Triton kernels ran on one NVIDIA H200. The check of an engine
  at the beginning of a run has not run on a GPU, nor has the mend of graphs that read weights which
  had moved.
- Compiled layers have run on a CPU only. On a GPU the engine does not compile.
- Steps with activation checkpointing are launched kernel by kernel: they are not recorded.
- In decoding, sources are padded to the longest of a batch, on a GPU to a multiple of 256 tokens.
  Batches are sorted by length, so that little is padded.
- Products in fp8 are not built. Optimizer states in 8 bits exist as `train.optimizer=adamw_8bit`.
"""


_NO_CURVES = """- Losses of 200 steps have not been compared for all recipes and families, with
  and without dropout, in one run of `python benchmarks/loss_curves.py`.
"""
_NO_SPEED = """- The speed of compiled layers has not been measured on a machine without other work:
  `python benchmarks/compiled_layers.py`.
"""


def not_proven(folder: Path) -> Iterator[str]:
    """Return the section on what remains unproven, by the results that are in a folder."""
    yield _NOT_PROVEN
    if not (folder / CURVES).is_file():
        yield _NO_CURVES
    if not (folder / COMPILED).is_file():
        yield _NO_SPEED


def engine_sections(folder: Path) -> Iterator[str]:
    """Return the sections for the results that are in a folder."""
    if (folder / COMPILED).is_file():
        yield from _compiled(json.loads((folder / COMPILED).read_text("utf-8")))
    if (folder / CURVES).is_file():
        yield from _loss_curves(json.loads((folder / CURVES).read_text("utf-8")))


def _compiled(results: dict[str, Any]) -> Iterator[str]:
    yield _COMPILED
    for case in results["cases"]:
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['precision']} "
            f"| {case['speed_ratio']:.2f} ({_spread(case['speed_ratio_ci'])}) "
            f"| **{case['processor_ratio']:.2f}** ({_spread(case['processor_ratio_ci'])}) "
            f"| {case['graphs']} | {case['compile_seconds']:.0f} s "
            f"| {case['compile_seconds_again']:.0f} s |\n"
        )


def _loss_curves(results: dict[str, Any]) -> Iterator[str]:
    cases = results["cases"]
    plain = [case for case in cases if not case["dropout"]]
    dropped = {(c["family"], c["recipe"]): c for c in cases if c["dropout"]}
    largest = max(max(case["largest_relative_difference"].values()) for case in plain)
    equal = sum(case["equal"] for case in cases)
    verdict = f"{equal} of {len(cases)} comparisons are equal; without dropout, the largest"
    verdict += f" difference is {largest:.1e}."
    for case in plain:
        if rounding := case.get("effect_of_rounding"):
            verdict += (
                f" In {case['family']} `{case['recipe']}` the losses of padded batches change by up"
                f" to {rounding:.1e} if each step changes the weights in the seventh digit."
            )
    yield _LOSS_CURVES.format(steps=results["steps"], seeds=results["seeds"], verdict=verdict)
    for case in plain:
        differences, losses = case["largest_relative_difference"], case["losses"]["padded"]
        other = dropped[case["family"], case["recipe"]]
        yield (
            f"| {case['family']} | `{case['recipe']}` | {losses[0]:.2f} to {losses[-1]:.2f} "
            f"| {differences['packed']:.1e} | {differences['recorded']:.1e} "
            f"| {other['difference']:+.3f} | {other['chance']:.3f} "
            f"| {other['effect_of_dropout']:+.3f} |\n"
        )


def _spread(interval: list[float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"
