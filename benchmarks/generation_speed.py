"""Compare harness generate with a loop around transformers' generate.

    python benchmarks/generation_speed.py --help

All contenders predict the same sources with the same pruned and trained model: nano-t5 after a
short training of lora_ff+lprun, merged. The peer is ``model.generate`` with 6 beams in batches of
sources that are sorted by length, as a user who wants speed writes it, at the best of several batch
sizes. The harness is ``harness generate`` with its default options, without loading: reading,
sorting, decoding and writing of a file are timed. Both compute in float32.

The hard part is a full search: sources of different lengths, several batches, and predictions that
are neither short nor all equal. The program fails if one of these is missing, or if one prediction
of the harness differs from the peer's. CTranslate2 computes in another order, so its share of equal
predictions is stated beside its speed. Contenders take turns, then in reverse.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from clock import in_the_running
from demands import demand, demand_spread
from generation import FILE, merge_record

import harness
from harness import LoadedModel
from harness.api.plugins import installed
from harness.data.dialect import Dialect
from harness.generation.file_job import FileJob
from harness.generation.sources import Fields
from harness.statistics.intervals import geometric_mean_interval
from harness.training.trained_run import open_run

BATCH_SIZES = (8, 16, 32, 64)
Predict = Callable[[], list[str]]


def train(results: Path, steps: int) -> Path:
    """Train the recipe shortly; return the folder of the run."""
    settings = {
        "device": "cpu",
        "train.max_steps": steps,
        "train.precision": "float32",
        "train.eval_examples": 16,
        "test.examples": 2,
        "probe.baseline": "off",
        "probe.steps": 1,
        "probe.rounds": 2,
    }
    run = harness.run(
        "nano-t5", "lora_ff+lprun", settings=settings, results=results, metrics="rouge"
    )
    demand(run.report.status == "ok", f"the run ended as {run.report.status}")
    return run.folder


def sources_of(folder: Path, loaded: LoadedModel, examples: int) -> list[str]:
    """Return sources of the run's task, each cut to a random share of its words."""
    spec = open_run(folder).spec
    task = installed().task(spec.task, {"train": 1, "eval": 1, "test": examples})
    rng = random.Random(0)
    texts = []
    for text in task.splits(0).test["source"]:
        words = text.split()
        texts.append(" ".join(words[: rng.randint(len(words) // 3, len(words))]))
    demand_spread([len(row) for row in loaded.tokenizer(texts).input_ids], "sources")
    return texts


def transformers_loop(loaded: LoadedModel, texts: list[str], size: int) -> list[str]:
    """Predict with transformers' generate, in batches sorted by length."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found: list[str] = []
    for start in range(0, len(order), size):
        batch = [loaded.prefix + texts[i] for i in order[start : start + size]]
        inputs = loaded.tokenizer(batch, return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            ids = loaded.model.generate(**inputs)
        found += loaded.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for _, text in sorted(zip(order, found, strict=True))]


class HarnessFile:
    """``harness generate`` from file to file, in this process.

    Args:
        model: the model.
        source: file of the sources.
        out: the output.
        loading: further arguments of the loader.
    """

    def __init__(self, model: str, source: Path, out: Path, **loading: Any) -> None:
        self.source, self.out = source, out
        # Nothing is asked of the decoding: it is that of the run.
        defaults: dict[str, Any] = {"device": "cpu", "precision": "float32", "decoder": "harness"}
        defaults |= {"adapters": {}, "settings": {}}
        self.job = FileJob(
            reference=model,
            loading={**defaults, **loading},
            fields=Fields(),
            window=2048,
            batch_tokens=None,
            on_progress=lambda status: None,
            on_note=lambda note: None,
        )
        self.seconds = 0.0

    def __call__(self) -> list[str]:
        """Predict; ``seconds`` is the time without loading."""
        generated = self.job.run(
            str(self.source),
            str(self.out),
            input_format=None,
            output_format=None,
            dialect=Dialect(),
            overwrite=True,
        )
        self.seconds = generated.seconds
        return [json.loads(line)["prediction"] for line in self.out.open(encoding="utf-8")]


def timed(predict: Predict) -> tuple[float, list[str]]:
    """Return the seconds and the predictions of a contender."""
    start = time.perf_counter()
    texts = predict()
    seconds = time.perf_counter() - start
    return (predict.seconds if isinstance(predict, HarnessFile) else seconds), texts


def check_predictions(predictions: Mapping[str, list[str]], peer: str, own: str) -> None:
    """Fail if predictions are short or all equal, or if the harness differs from the peer.

    Args:
        predictions: contender -> its predictions.
        peer: name of the peer.
        own: name of the harness with its own search.
    """
    for name, texts in predictions.items():
        words = statistics.mean(len(text.split()) for text in texts)
        demand(words >= 8, f"{name} predicts {words:.1f} words on average")
        demand(
            len(set(texts)) > len(texts) / 4, f"{name} predicts {len(set(texts))} different texts"
        )
    differing = sum(a != b for a, b in zip(predictions[peer], predictions[own], strict=True))
    demand(not differing, f"{own} differs from {peer} in {differing} predictions")


def compare(
    contenders: dict[str, Predict], peers: list[str], own: str, rounds: int
) -> dict[str, Any]:
    """Run all contenders in turn and reversed; return ratios to the fastest peer."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    texts: dict[str, list[str]] = {}

    def measure(names: list[str]) -> None:
        for name in names:
            spent, texts[name] = timed(contenders[name])
            seconds[name].append(spent)
            print(f"{name:24} {spent:.1f} s", flush=True)

    names = list(contenders)
    measure(names)
    near = in_the_running({name: 1 / seconds[name][0] for name in peers})
    names = [name for name in names if name in near or name not in peers]
    for _ in range(rounds):
        measure(names[::-1])
        measure(names)
    peer = min(near, key=lambda name: statistics.median(seconds[name][1:]))
    check_predictions(texts, peer, own)
    results = {}
    for name in names:
        # The first pass warms up.
        pairs = zip(seconds[peer][1:], seconds[name][1:], strict=True)
        ratios = [a / b for a, b in pairs]
        interval = geometric_mean_interval(ratios)
        results[name] = {
            "seconds": seconds[name][1:],
            "ratio": statistics.geometric_mean(ratios),
            "ratio_ci": [interval.low, interval.high],
            "equal_predictions": sum(a == b for a, b in zip(texts[peer], texts[name], strict=True)),
        }
    return {
        "peer": peer,
        "first_pass_seconds": {n: s[0] for n, s in seconds.items()},
        "contenders": results,
    }


def main() -> None:
    """Compare, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: its numbers mean little"
    )
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300, help="steps of the training")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if options.quick:
        options.examples, options.steps, options.rounds = 32, 60, 1
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as name:
        folder = train(Path(name) / "results", options.steps)
        loaded = harness.load(folder)
        texts = sources_of(folder, loaded, options.examples)
        source = Path(name) / "in.jsonl"
        source.write_text("".join(json.dumps({"source": text}) + "\n" for text in texts))
        peers: dict[str, Predict] = {
            f"transformers, batch {size}": partial(transformers_loop, loaded, texts, size)
            for size in BATCH_SIZES
            if size < options.examples
        }
        own = "harness"
        contenders: dict[str, Predict] = {
            **peers,
            own: HarnessFile(str(folder), source, Path(name) / "out.jsonl"),
            "harness, ctranslate2": HarnessFile(
                str(folder), source, Path(name) / "converted.jsonl", decoder="ctranslate2"
            ),
        }
        values = compare(contenders, list(peers), own, options.rounds)
    values["examples"] = options.examples
    values["decoding"] = loaded.model.generation_config.to_diff_dict()
    for name, contender in values["contenders"].items():
        print(f"{name:24} {contender['ratio']:.2f}x, {contender['equal_predictions']} equal")
    merge_record(options.out / FILE, "speed", values, options.quick)


if __name__ == "__main__":
    main()
