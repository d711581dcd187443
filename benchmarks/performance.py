"""Write docs/performance.md from stored measurements: python benchmarks/performance.py --help."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparison import MOST
from engine_tables import engine_sections, not_proven

from harness.records.atomic import write_text

GROWTH = "growth.svg"
STEP = "gpu/nvidia-h200/step.svg"
"""The picture of a step, beside the folder of results."""
ON_GPU = "training-cuda.json"
_HEAD = """# Performance

The usual choice today is transformers' Seq2SeqTrainer with PEFT. This page compares the harness
with it, on the same samples, for the same number of steps, with random weights of the named shapes.
`make bench` writes this page from the files in `{folder}`; do not edit it.
[Training on a GPU](gpu.md) has the comparison on an NVIDIA H200, and counts the kernels that a
training step of each recipe launches.
"""
_TRAINING = """
## Training

Each setting of the trainer that a good user would try is measured in a short window: precision,
grouping by length, a sampler with a token budget, attention, optimizer, frozen weights in bfloat16,
torch_compile and liger. Settings that helped are then tried together. Up to {most} of the fastest,
all within 15 % of the best, are measured in long windows, in turn with the harness. The fastest of
them is the peer of a row. *Harness* names the precision that the harness chooses by itself.

*Speed* is the ratio of tokens/s, where more than 1 is a gain; *memory* is a ratio where less than 1
is a gain. Memory is the peak growth of the process since before the model was built. The interval
is Student's t over the logarithms of matched windows. *Matrix rate* divides the matrix products per
second of the harness by the machine's rate on large bfloat16 matrices; it counts only the products
that a step without padding needs. *Own sampler* is the speed compared with the fastest setting that
uses a sampler of the trainer. It rests on one short window of each, so it is uncertain by 10 %.
"""
_CONTENDERS = """
All settings that were tried. *Real* is the share of tokens in padded batches that are not padding.
The rate of a contender without long windows rests on one short window: it is uncertain by 10 %.
"""
_CURVES = """
Losses of {steps} steps on the embedded task, without dropout and from equal adapters, and the
largest difference of each curve from that of the trainer in float32:
"""
_LEFT = """
### Time that is left

A step of t5-small `lora_ff` in bfloat16 on one core, by torch.profiler (10 steps, AMD EPYC). Some
dropout is part of attention, so the shares add up to more than 100 %:

| part | share | |
| --- | --- | --- |
| matrix products of the layers | 43 % | 187 to 194 GFLOP/s, the machine's rate |
| LM head and loss | 17 % | 13 % are matrix products of about 110 rows each, at 159 GFLOP/s |
| rank-16 products | 5 % | 60 to 70 GFLOP/s |
| attention within sequences | 18 % | 7 % are small matrix products, at 87 GFLOP/s |
| drawing and applying dropout masks | 11 % | |
| the rest | 10 % | copies between precisions, norms, residuals, ReLU, calls |

The goals were 2.5 times the speed of the best peer with LoRA, 1.8 times with `full`, and 0.65 of
the matrix rate. None of them is reached. The best peer is no longer the trainer with its defaults:
a token-budget sampler leaves hardly any padding, and eager attention is faster here than sdpa.

On one core the step reaches 0.56 of the matrix rate; to reach 0.65, a seventh of its time would
have to go. Three changes gained nothing beyond noise: loss chunks of 24, 31 and 62 MB instead of
16, masks from a table instead of unpacked bits, and masks drawn in two threads. Custom kernels for
masks and for attention are the option that remains.
"""
_STEP = """
## One step on a GPU

![What the processor and the GPU do during one step](../{picture})

A step of 8 examples of different lengths, 2,342 tokens, on an NVIDIA H200, by torch.profiler. The
trainer launches each kernel, and its GPU waits for the processor. The harness launches one CUDA
graph. The profile has the total time of each kind of kernel: the kinds are drawn one after another,
and not in the order in which kernels ran. `python scripts/step_timeline.py` draws the picture from
`kernels.json` in the same folder.
"""
_DECODING = """
## Prediction

Beam search over the same sources, sorted by length, in batches of the same size. transformers'
own search runs in float32 and, by autocast, in bf16; speed is relative to the faster of the two.
*Same outputs* counts outputs equal to those of transformers in float32. With random weights the
scores of words are nearly tied, so any other rounding changes outputs, also those of transformers.
"""
_GROWTH = """
## How cost grows

The cost of a training step of a thin T5 (random weights, `lora_ff`, packed) when one quantity
grows. For the number of examples it is the cost of all that a run does once with them before
training. The exponent is the slope on logarithmic axes over the larger half of the points; 1 is
linear. Attention is quadratic in the source length, and dominates in such a thin model.

![Time and memory](../{folder}/{chart})
"""
_GPU = """
## Training on a GPU

Measured on: {device}, driver {driver}; {versions}. It multiplies large bfloat16 matrices at
{rate:.0f} TFLOP/s. All contenders compute in bf16. Memory is the peak of bytes in tensors. *Share*
is the share of that matrix rate that the products of a step without padding reach. *Relative* is
the harness's speed compared with its own full fine-tuning; *limit* is what FLOPs alone would allow.
"""


def page(folder: Path) -> str:
    """Return the page for the files in a folder."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    decoding = json.loads((folder / "decoding.json").read_text("utf-8"))
    parts = [_HEAD.format(folder=folder.as_posix())]
    if training["quick"] or decoding["quick"]:
        parts.append("\n**These numbers come from a smoke test and mean nothing.**\n")
    parts += [_fingerprint(training["fingerprint"]), _TRAINING.format(most=MOST)]
    parts += _training(_whole(training))
    if curves := training.get("curves"):
        steps = len(next(iter(curves["losses"].values())))
        parts += [_CURVES.format(steps=steps), *_curves(curves)]
    parts += [_LEFT, *engine_sections(folder), _DECODING, *_decoding(decoding["cases"])]
    if (folder.parent / STEP).is_file():
        parts.append(_STEP.format(picture=(folder.parent / STEP).as_posix()))
    if (folder / ON_GPU).is_file():
        parts += _on_gpu(json.loads((folder / ON_GPU).read_text("utf-8")))
    if (folder / GROWTH).is_file():
        # The link is relative to docs/, the folder of the page.
        growth = json.loads((folder / "growth.json").read_text("utf-8"))
        parts += [_GROWTH.format(folder=folder.as_posix(), chart=GROWTH), *_growth(growth["axes"])]
    parts += not_proven(folder)
    return "".join(parts)


def _fingerprint(fingerprint: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in fingerprint["versions"].items())
    return f"\nMeasured on: {fingerprint['cpu']}, {fingerprint['threads']} threads; {versions}.\n"


def _whole(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cases that are completely measured."""
    cases = [case for case in training["cases"] if "speed_ratio" in case]
    if not cases:
        raise SystemExit("No case of the training benchmark is completely measured.")
    return cases


def _training(cases: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "\n| shape | recipe | batch | peer | harness "
        "| speed | 95 % | by CPU time | memory | matrix rate | own sampler |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        harness = case["ours"]
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} "
            f"| {case['peer']} | {harness.removeprefix('harness, ')} "
            f"| **{case['speed_ratio']:.2f}** | {_span(case['speed_ratio_ci'])} "
            f"| {case['speed_ratio_by_processor_time']:.2f} | {case['memory_ratio']:.2f} "
            f"| {case['share_of_matrix_rate'][harness]:.0%} | {_over_own_samplers(case):.2f} |\n"
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
        for name, trial in case["trials"].items():
            long = case["windows"].get(name, [])
            rate = case["tokens_per_s"].get(name, trial["tokens"] / trial["wall"])
            memory = case["peak_bytes"].get(name, trial["memory"])
            yield f"| {name} | {rate:,.0f} | {len(long) or '-'} | {memory / 2**30:.2f} GiB |\n"
        for name, reason in case["skipped"].items():
            yield f"| {name} | not tried: {reason} | - | - |\n"


def _curves(curves: dict[str, Any]) -> Iterator[str]:
    yield "\n| | first loss | last loss | largest difference |\n| --- | --- | --- | --- |\n"
    for name, losses in curves["losses"].items():
        difference = curves["largest_relative_difference"][name]
        yield f"| {name} | {losses[0]:.5f} | {losses[-1]:.5f} | {difference:.1e} |\n"


def _on_gpu(results: dict[str, Any]) -> Iterator[str]:
    fingerprint = results["fingerprint"]
    rate = max(case["matrix_rate"] for case in _whole(results)) / 1e12
    versions = ", ".join(f"{name} {version}" for name, version in fingerprint["versions"].items())
    yield _GPU.format(
        device=fingerprint["device"], driver=fingerprint["driver"], versions=versions, rate=rate
    )
    if results["quick"]:
        yield "\n**These numbers come from a smoke test and mean nothing.**\n"
    cases = _whole(results)
    fulls = {case["shape"]: case["tokens_per_s"] for case in cases if case["recipe"] == "full"}
    yield (
        "\n| shape | recipe | batch | peer | speed | 95 % | memory | share, peer's "
        "| relative | limit |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    for case in cases:
        harness, peer = case["ours"], case["peer"]
        share, full = case["share_of_matrix_rate"], fulls.get(case["shape"], {}).get(harness)
        relative = f"{case['tokens_per_s'][harness] / full:.2f}" if full else "-"
        yield (
            f"| {case['shape']} | `{case['recipe']}` | {case['batch']} | {peer} "
            f"| **{case['speed_ratio']:.2f}** | {_span(case['speed_ratio_ci'])} "
            f"| {case['memory_ratio']:.2f} | {share[harness]:.1%}, {share[peer]:.1%} "
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
        for name, contender in case["contenders"].items():
            yield (
                f"| {case['shape']} | {case['weights']} | {name} "
                f"| {contender['examples_per_s']:.2f} "
                f"| **{contender['ratio']:.2f}** | {_span(contender['ratio_ci'])} "
                f"| {contender['same_outputs']} of {case['examples']} |\n"
            )
    yield f"\nThe search: `{cases[0]['search']}`, batches of {cases[0]['batch']}.\n"


def _growth(axes: dict[str, Any]) -> Iterator[str]:
    yield (
        "\n| against | from | to | exponent of time | of memory |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    for name, axis in axes.items():
        first, *_, last = (row["at"] for row in axis["rows"])
        memory = axis["exponents"].get("bytes")
        shown = "not measured" if memory is None else f"{memory:.2f}"
        time = axis["exponents"]["seconds"]
        yield f"| {name} | {first:,} | {last:,} | {time:.2f} | {shown} |\n"


def _span(interval: list[float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "one window"


def main() -> None:
    """Read the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    write_text(options.page, page(options.results))
    print(f"Written: {options.page}")


if __name__ == "__main__":
    main()
