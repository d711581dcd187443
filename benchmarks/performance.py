"""Write docs/performance.md from what was measured: python benchmarks/performance.py --help."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparison import MOST

from harness.records.atomic import write_text

GROWTH = "growth.svg"
ON_GPU = "training-cuda.json"
_HEAD = """# Performance

What a user would pick today is transformers' Seq2SeqTrainer with PEFT. This page compares the
harness with it: the same samples, the same number of steps, random weights of the shapes named.
It is written by `make bench` from the files in `{folder}`, and not by hand.
How many kernels a training step launches on a GPU, before and after, stands by recipe in
[Training on a GPU](gpu.md#kernels-that-a-step-launches).
"""
_TRAINING = """
## Training

Each setting of the trainer that a good user would try is tried in a short window: precision, its
own grouping by length, a sampler with a budget of tokens, attention, optimizer, frozen weights in
bfloat16, torch_compile, liger; then those that helped, together. The {most} fastest, as far as they
are within 15 % of the best, are measured in long windows beside *harness*, which stands for the
precision that it chooses by itself; the fastest of them is the peer of a row. A ratio above 1 is a
gain in speed (tokens/s) or, below 1, in memory (growth of the process at its peak, from before the
model was built). The interval is Student's t over the logarithms of matched windows. *Matrix rate*
is the share that the harness reaches of the rate at which the machine multiplies large bfloat16
matrices, if only the products count that a step without padding needs. *Own sampler* is the speed
compared with the fastest setting that keeps to the trainer's own samplers, by one short window of
each: read 10 % into it.
"""
_CONTENDERS = """
All that was tried. *Real* is the share of padded batches that is no padding. Rates of contenders
that were not measured in long windows are those of one short window: read 10 % into them.
"""
_CURVES = """
The losses of {steps} steps on the embedded task, without dropout, from equal adapters; how far a
curve is at most from that of the trainer in float32:
"""
_LEFT = """
### What is left

A step of t5-small `lora_ff` in bfloat16 on one core, as torch.profiler sees it (10 steps, AMD EPYC;
some dropout is within attention, so that shares add up to more than all):

| part | share | |
| --- | --- | --- |
| products of the layers | 43 % | 187 to 194 GFLOP/s, which is the machine's rate |
| LM head and loss | 17 % | 13 % are products, at 159 GFLOP/s, of some 110 rows each |
| rank-16 products | 5 % | 60 to 70 GFLOP/s |
| attention within sequences | 18 % | 7 % are products, small ones, at 87 GFLOP/s |
| dropout masks, drawn and applied | 11 % | |
| the rest | 10 % | copies between precisions, norms, residuals, ReLU, calls |

The goals were 2.5 times the speed of the best peer with LoRA, 1.8 times with `full`, and 0.65 of
the matrix rate. None of them is reached. The best peer is no longer the trainer as it comes: a
token-budget sampler leaves hardly any padding, and eager attention is faster here than sdpa.

On one core the step reaches 0.56 of the matrix rate; for 0.65 a seventh of its time would have to
vanish. These gained nothing beyond noise: chunks of the loss of 24, 31 and 62 MB in place of 16,
masks from a table in place of unpacked bits, masks drawn in two threads. Kernels of our own remain,
for masks and for attention.
"""
_DECODING = """
## Prediction

Beam search over the same sources, sorted by length, in batches of the same size; transformers' own
in float32 or, by autocast, in bf16, and the faster of the two is what the others are compared with.
*Same outputs* counts those of transformers in float32. With random weights the scores of words are
nearly tied, so that any other rounding changes outputs, also transformers' own.
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
is how much of that matrix rate the products of a step without padding reach, *relative* the
harness's speed compared with its full fine-tuning, *limit* what FLOPs alone would make of it.
"""


def page(folder: Path) -> str:
    """Return the page for the files that a folder holds."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    decoding = json.loads((folder / "decoding.json").read_text("utf-8"))
    parts = [_HEAD.format(folder=folder.as_posix())]
    if training["quick"] or decoding["quick"]:
        parts.append("\n**These numbers come from a smoke test and say nothing.**\n")
    parts += [_fingerprint(training["fingerprint"]), _TRAINING.format(most=MOST)]
    parts += _training(_whole(training))
    if curves := training.get("curves"):
        steps = len(next(iter(curves["losses"].values())))
        parts += [_CURVES.format(steps=steps), *_curves(curves)]
    parts += [_LEFT, _DECODING, *_decoding(decoding["cases"])]
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


def _whole(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cases that were measured to their end."""
    cases = [case for case in training["cases"] if "speed_ratio" in case]
    if not cases:
        raise SystemExit("No case of the training benchmark was measured to its end.")
    return cases


def _training(cases: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "\n| shape | recipe | batch | peer | harness "
        "| speed | 95 % | by CPU time | memory | matrix rate | own sampler |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        ours = case["ours"]
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} "
            f"| {case['peer']} | {ours.removeprefix('harness, ')} "
            f"| **{case['speed_ratio']:.2f}** | {_span(case['speed_ratio_ci'])} "
            f"| {case['speed_ratio_by_processor_time']:.2f} | {case['memory_ratio']:.2f} "
            f"| {case['share_of_matrix_rate'][ours]:.0%} | {_over_own_samplers(case):.2f} |\n"
        )
    yield _CONTENDERS
    yield from _contenders(cases)


def _over_own_samplers(case: dict[str, Any]) -> float:
    """Return the speed over the fastest trainer without a token budget, by short windows."""
    rates: dict[str, float] = {
        name: trial["tokens"] / trial["wall"] for name, trial in case["trials"].items()
    }
    own = [
        r for name, r in rates.items() if "budget" not in name and not name.startswith("harness")
    ]
    return rates[case["ours"]] / max(own)


def _contenders(cases: list[dict[str, Any]]) -> Iterator[str]:
    for case in cases:
        share = case["real_share"]
        yield (
            f"\n{case['shape']} `{case['recipe']}`; real: {share['random']:.0%} in random order, "
            f"{share['grouped']:.0%} grouped, {share['budget']:.0%} by a budget:\n\n"
            "| | tokens/s | long windows | memory |\n| --- | --- | --- | --- |\n"
        )
        for name, tried in case["trials"].items():
            long = case["windows"].get(name, [])
            rate = case["tokens_per_s"].get(name, tried["tokens"] / tried["wall"])
            memory = case["peak_bytes"].get(name, tried["memory"])
            yield f"| {name} | {rate:,.0f} | {len(long) or '-'} | {memory / 2**30:.2f} GiB |\n"
        for name, reason in case["skipped"].items():
            yield f"| {name} | not tried: {reason} | - | - |\n"


def _curves(curves: dict[str, Any]) -> Iterator[str]:
    yield "\n| | first loss | last loss | largest difference |\n| --- | --- | --- | --- |\n"
    for name, losses in curves["losses"].items():
        difference = curves["largest_relative_difference"][name]
        yield f"| {name} | {losses[0]:.5f} | {losses[-1]:.5f} | {difference:.1e} |\n"


def _on_gpu(found: dict[str, Any]) -> Iterator[str]:
    own = found["fingerprint"]
    rate = max(case["matrix_rate"] for case in _whole(found)) / 1e12
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    yield _GPU.format(device=own["device"], driver=own["driver"], versions=versions, rate=rate)
    if found["quick"]:
        yield "\n**These numbers come from a smoke test and say nothing.**\n"
    cases = _whole(found)
    fulls = {case["shape"]: case["tokens_per_s"] for case in cases if case["recipe"] == "full"}
    yield (
        "\n| shape | recipe | batch | peer | speed | 95 % | memory | share, peer's "
        "| relative | limit |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        ours, peer = case["ours"], case["peer"]
        share, full = case["share_of_matrix_rate"], fulls.get(case["shape"], {}).get(ours)
        relative = f"{case['tokens_per_s'][ours] / full:.2f}" if full else "-"
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} | {peer} "
            f"| **{case['speed_ratio']:.2f}** | {_span(case['speed_ratio_ci'])} "
            f"| {case['memory_ratio']:.2f} | {share[ours]:.1%}, {share[peer]:.1%} "
            f"| {relative} | {case['flop_limit']:.2f} |\n"
        )
    yield _CONTENDERS
    yield from _contenders(cases)


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
