"""Write docs/performance.md from what was measured: python benchmarks/performance.py --help."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.reporting.writing import write_text

GROWTH = "growth.svg"
ON_GPU = "training-cuda.json"
WHOLE_POOL = 4 * 50  # batches: with fewer the trainer groups over less than 50 at a time
_HEAD = """# Performance

What a user would pick today is transformers' Seq2SeqTrainer with PEFT. This page compares the
harness with it: the same samples, the same number of steps, random weights of the shapes named.
It is written by `make bench` from the files in `{folder}`, and not by hand.
"""
_TRAINING = """
## Training

The best of the trainer's settings (float32 or bf16, its own grouping by length on or off) is the
peer of each row, and *harness* the precision that it chooses by itself. A ratio above 1 is a gain
in speed (tokens/s) or, below 1, in memory (growth of the process at its peak, from before the model
was built). Peers within 15 % of the best are measured as often as the harness, the others once; the
interval is Student's t over the logarithms of matched windows. *Real* is the share of a padded
batch that is no padding: the gain from packing follows from it.
"""
_UNGROUPED = """
**The speeds of this table flatter the harness.** Grouping by length, the trainer sorts
mega-batches of 50 batches, or a quarter of the pool where that is less; the pool was a window of
{batches} batches here, so that it grouped next to nothing. Measured apart with a pool of
1,600 examples and 50 steps (bf16, two cores), where 77 % of its padded batches were real, the gain
over the trainer grouped by length is 1.8 to 2.1 times for t5-small `lora_ff`, 1.4 for t5-small
`full` and 2.2 for bart-base `lora_ff`. The other rows were not measured in that way.
"""
_CURVES = """
The losses of {steps} steps on the embedded task, without dropout, from equal adapters; how far a
curve is at most from that of the trainer in float32:
"""
_DECODING = """
## Prediction

Beam search over the same sources in batches of the same size; transformers' own takes them in the
order given, in float32 or, by autocast, in bf16, and the faster of the two is what the others are
compared with. *Same outputs* counts those of transformers in float32. With random weights the
scores of words are nearly tied, so that any other rounding changes outputs, also transformers' own.
"""
_GROWTH = """
## How cost grows

A training step of a thin T5 (random weights, `lora_ff`, packed) against one thing at a time, and
for the number of examples what a run does once with all of them before it trains. The exponent is
the slope in logarithms over the larger half of the points: 1 is linear. Attention is quadratic in
the length of a source, and outweighs all else in a model so thin.

![Time and memory](../{folder}/{chart})
"""
_GPU = """
## Training on a GPU

Measured on: {device}, driver {driver}; {versions}. It multiplies large bfloat16 matrices at
{rate:.0f} TFLOP/s. All contenders compute in bf16; memory is what tensors took at the peak. *Share*
is how much of that matrix rate the products of a step without padding reach, *relative* the speed
compared with full fine-tuning by the same contender, *limit* what FLOPs alone would make of it.
"""


def page(folder: Path) -> str:
    """Return the page for the files that a folder holds."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    decoding = json.loads((folder / "decoding.json").read_text("utf-8"))
    parts = [_HEAD.format(folder=folder.as_posix())]
    if training["quick"] or decoding["quick"]:
        parts.append("\n**These numbers come from a smoke test and say nothing.**\n")
    parts += [_fingerprint(training["fingerprint"]), _TRAINING]
    if ungrouped := [case for case in training["cases"] if _is_ungrouped(case)]:
        batches = min(case["warmup"] + case["steps"] for case in ungrouped)
        parts.append(_UNGROUPED.format(batches=batches))
    parts += _training(training["cases"])
    if curves := training.get("curves"):  # The last to be measured.
        steps = len(next(iter(curves["losses"].values())))
        parts += [_CURVES.format(steps=steps), *_curves(curves)]
    parts += [_DECODING, *_decoding(decoding["cases"])]
    if (folder / ON_GPU).is_file():
        parts += _on_gpu(json.loads((folder / ON_GPU).read_text("utf-8")))
    if (folder / GROWTH).is_file():
        # Relative to docs/, where the page lies.
        growth = json.loads((folder / "growth.json").read_text("utf-8"))
        parts += [_GROWTH.format(folder=folder.as_posix(), chart=GROWTH), *_growth(growth["axes"])]
    return "".join(parts)


def _fingerprint(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"\nMeasured on: {found['cpu']}, {found['threads']} threads; {versions}.\n"


def _is_ungrouped(case: dict[str, Any]) -> bool:
    """Whether the pool was too small for the trainer to group by length as it does in earnest."""
    pool = case.get("pool") or case["warmup"] + case["steps"]
    return not case["full_length"] and pool < WHOLE_POOL


def _training(cases: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "\n| shape | recipe | batch | real | peer | harness "
        "| speed | 95 % | by CPU time | memory |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} "
            f"| {case['real_share_of_padded']:.0%} | {case['peer']} "
            f"| {case['ours'].removeprefix('harness, ')} "
            f"| **{case['speed_ratio']:.2f}** | {_span(case['speed_ratio_ci'])} "
            f"| {case['speed_ratio_by_processor_time']:.2f} | {case['memory_ratio']:.2f} |\n"
        )
    yield "\nTokens/s and peak memory of every contender:\n"
    yield from _contenders(cases)


def _contenders(cases: list[dict[str, Any]]) -> Iterator[str]:
    names = list(cases[0]["tokens_per_s"])
    yield f"\n| shape | recipe | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}\n"
    for case in cases:
        cells = (
            f"{case['tokens_per_s'][name]:,.0f}; {case['peak_bytes'][name] / 2**30:.2f} GiB"
            for name in names
        )
        yield f"| {case['shape']} | `{case['recipe']}` | {' | '.join(cells)} |\n"


def _curves(curves: dict[str, Any]) -> Iterator[str]:
    yield "\n| | first loss | last loss | largest difference |\n| --- | --- | --- | --- |\n"
    for name, losses in curves["losses"].items():
        difference = curves["largest_relative_difference"][name]
        yield f"| {name} | {losses[0]:.5f} | {losses[-1]:.5f} | {difference:.1e} |\n"


def _on_gpu(found: dict[str, Any]) -> Iterator[str]:
    own, rate = found["fingerprint"], found["matrix_rate"] / 1e12
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    yield _GPU.format(device=own["device"], driver=own["driver"], versions=versions, rate=rate)
    if found["quick"]:
        yield "\n**These numbers come from a smoke test and say nothing.**\n"
    yield (
        "\n| shape | recipe | batch | real | speed | 95 % | memory | share, peer's "
        "| relative, peer's | limit |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in found["cases"]:
        ours, peer = case["ours"], case["peer"]
        share, relative = case["share_of_matrix_rate"], "- | -"
        if speeds := case.get("relative_speed"):
            relative = f"{speeds[ours]:.2f}, {speeds[peer]:.2f} | {case['flop_limit']:.2f}"
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} "
            f"| {case['real_share_of_padded']:.0%} | **{case['speed_ratio']:.2f}** "
            f"| {_span(case['speed_ratio_ci'])} | {case['memory_ratio']:.2f} "
            f"| {share[ours]:.1%}, {share[peer]:.1%} | {relative} |\n"
        )
    yield "\nTokens/s and peak memory of every contender:\n"
    yield from _contenders(found["cases"])


def _decoding(cases: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "\n| shape | weights | | examples/s | speed | 95 % | same outputs |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        for name, one in case["contenders"].items():
            yield (
                f"| {case['shape']} | {case['weights']} | {name} | {one['examples_per_s']:.2f} "
                f"| **{one['ratio']:.2f}** | {_span(one['ratio_ci'])} "
                f"| {one['same_outputs']} of {case['examples']} |\n"
            )
    yield f"\nThe search: `{cases[0]['search']}`, batches of {cases[0]['batch']}.\n"


def _growth(axes: dict[str, Any]) -> Iterator[str]:
    yield (
        "\n| against | from | to | exponent of time | of memory |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    for name, found in axes.items():
        first, *_, last = (row["at"] for row in found["rows"])
        memory = found["exponents"].get("bytes")
        shown = "not measured" if memory is None else f"{memory:.2f}"
        time = found["exponents"]["seconds"]
        yield f"| {name} | {first:,} | {last:,} | {time:.2f} | {shown} |\n"


def _span(interval: list[float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "one window"


def main() -> None:
    """Read a folder, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    write_text(options.page, page(options.results))
    print(f"Written: {options.page}")


if __name__ == "__main__":
    main()
