"""Compare generation with transformers' own: python benchmarks/decoding.py --help.

All contenders use the same model, sources and batch size, in one process. They run in turn, then in
reverse order; after the first pass the slower settings of the peer are left out. The peer is
``generate`` as Seq2SeqTrainer.predict calls it, in float32 or, by autocast, in bf16. It gets its
sources sorted by length, as a user who wants speed would do. The benchmark demands a full search:
sources of different lengths, several batches and long outputs. It fails if one of these is missing,
and if the search in float32 gives other outputs than the peer's.

With random weights hardly any example ends before the maximum length, so the gain from finished
examples leaving the batch does not show. The scores of words are then so close that any other
rounding gives other outputs; that holds for transformers' own search in bf16 too. nano-t5 has its
own weights and the sources of the embedded task, truncated to different lengths.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from clock import in_the_running
from demands import demand, demand_spread
from transformers import PreTrainedModel

from harness import Backbone
from harness.api.plugins import installed
from harness.backbones.nano import NanoT5
from harness.data.tokenizing import tokenize
from harness.evaluation.decoding import generate, signature
from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.spec.decoding import DecodingSettings
from harness.statistics.intervals import geometric_mean_interval

FILE = "decoding.json"
Rows = list[list[int]]


class _Ids:
    """Replaces a tokenizer, since token ids are compared and not texts."""

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        """Return rows as ids without the special ones, which are the lowest in both families."""
        assert skip_special_tokens
        return [" ".join(str(i) for i in row if i > 3) for row in rows.tolist()]


def _sources(examples: int, vocabulary: int, end: int) -> Rows:
    """Return random sources of 130 tokens on average and at most 512."""
    rng = random.Random(0)
    lengths = [min(512, 2 + int(rng.gammavariate(2, 130 / 2))) for _ in range(examples)]
    return [[*(rng.randrange(5, vocabulary) for _ in range(n - 1)), end] for n in lengths]


def _demo_sources(backbone: Backbone, examples: int) -> Rows:
    name = "radiology_demo"
    task = installed().task(name, {"train": 1, "eval": 1, "test": examples})
    rows = tokenize(task.splits(0).test, backbone.tokenizer(), task).examples
    # Its reports have similar lengths, so each keeps a random share of its tokens, from a third on.
    rng = random.Random(0)
    return [e.source[: rng.randint(len(e.source) // 3, len(e.source))] for e in rows]


def _transformers(
    model: PreTrainedModel, sources: Rows, settings: DecodingSettings, dtype: torch.dtype
) -> list[str]:
    texts: list[str] = []
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    pad = model.generation_config.pad_token_id
    for start in range(0, len(sources), settings.batch_size):
        batch = [sources[i] for i in order[start : start + settings.batch_size]]
        width = max(map(len, batch))
        with autocast:
            rows = model.generate(
                input_ids=torch.tensor([row + [pad] * (width - len(row)) for row in batch]),
                attention_mask=torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in batch]),
                num_beams=settings.beams,
                max_new_tokens=settings.max_new_tokens,
                no_repeat_ngram_size=settings.no_repeat_ngram,
                early_stopping=False,
                length_penalty=1.0,
            )
        texts += _Ids().batch_decode(rows, skip_special_tokens=True)
    return [text for _, text in sorted(zip(order, texts, strict=True))]


def check_sources(sources: Rows, batch: int) -> None:
    """End the program if sorting gains nothing: one batch only, or sources of equal length."""
    demand(len(sources) > batch, f"{len(sources)} examples are one batch of {batch}")
    demand_spread([len(source) for source in sources], "sources")


def check_outputs(texts: dict[str, list[str]], reference: str, own: str, longest: int) -> None:
    """Fail if outputs are short or all equal, or differ from the peer's in float32.

    Args:
        texts: contender -> its outputs, as ids separated by spaces.
        reference: the peer in float32.
        own: the harness in float32.
        longest: maximum number of tokens of an output.
    """
    for name, outputs in texts.items():
        lengths = [len(text.split()) for text in outputs]
        mean = sum(lengths) / len(lengths)
        demand(mean >= 0.1 * longest, f"{name} generates {mean:.1f} of at most {longest} tokens")
        demand(len(set(outputs)) > 1, f"{name} generates the same for all sources")
    same = sum(a == b for a, b in zip(texts[reference], texts[own], strict=True))
    demand(same >= 0.9 * len(texts[own]), f"{own} finds {same} outputs of {len(texts[own])}")


def _harness(
    backbone: Backbone,
    model: PreTrainedModel,
    sources: Rows,
    settings: DecodingSettings,
    dtype: torch.dtype,
) -> list[str]:
    shared = backbone.shared_beams
    return generate(model, _Ids(), sources, settings, shared_beams=shared, dtype=dtype)


def compare(shape: str, examples: int, rounds: int, settings: DecodingSettings) -> dict[str, Any]:
    """Decode with all contenders, in turn and reversed; return times, ratios and equal outputs."""
    backbone = installed().backbone(shape)
    torch.manual_seed(0)
    trained = isinstance(backbone, NanoT5)  # Only its weights are part of the package.
    model = backbone.load("pretrained" if trained else "random").eval()
    if trained:
        sources = _demo_sources(backbone, examples)
    else:
        end = model.generation_config.eos_token_id
        sources = _sources(examples, model.config.vocab_size, end)

    check_sources(sources, settings.batch_size)
    contenders = {
        f"{library}, {precision}": partial(decode, model, dtype=dtype)
        for library, decode in (
            ("transformers", _transformers),
            ("harness", partial(_harness, backbone)),
        )
        for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16))
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    texts: dict[str, list[str]] = {}

    def measure(names: Iterable[str]) -> None:
        for name in names:
            start = time.perf_counter()
            texts[name] = contenders[name](sources, settings)
            seconds[name].append(time.perf_counter() - start)

    peers = [name for name in contenders if name.startswith("transformers")]
    for decode in contenders.values():  # Lazy loading is not timed.
        decode(sources[:1], settings.model_copy(update={"max_new_tokens": 2}))
    measure(contenders)
    near_peers = in_the_running({name: examples / seconds[name][0] for name in peers})
    timed = [name for name in contenders if name in near_peers or name not in peers]
    measure(reversed(timed))
    for _ in range(rounds - 1):
        measure(timed)
        measure(reversed(timed))
    reference, *_ = contenders
    check_outputs(texts, reference, "harness, float32", settings.max_new_tokens)
    # All contenders are compared with the fastest setting of the peer.
    peer = min(peers, key=lambda name: statistics.median(seconds[name]))
    return {
        "shape": shape,
        "weights": "pretrained" if trained else "random",
        "peer": peer,
        "examples": examples,
        "batch": settings.batch_size,
        "search": signature(settings),
        "contenders": {
            name: {
                **_speed(seconds[name], seconds[peer], examples),
                "same_outputs": sum(
                    a == b for a, b in zip(texts[reference], texts[name], strict=True)
                ),
            }
            for name in contenders
        },
    }


def _speed(seconds: list[float], peer_seconds: list[float], examples: int) -> dict[str, Any]:
    """Return a contender's rate, and its ratio to the peer's with an interval."""
    ratios = [peer / own for peer, own in zip(peer_seconds, seconds, strict=False)]
    interval = geometric_mean_interval(ratios) if len(ratios) > 1 else None
    return {
        "seconds": seconds,
        "examples_per_s": examples / statistics.median(seconds),
        "ratio": statistics.geometric_mean(ratios),
        "ratio_ci": [interval.low, interval.high] if interval else None,
    }


def main() -> None:
    """Compare; print each finished shape and write all finished ones to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: its numbers mean little"
    )
    parser.add_argument("--shapes", nargs="+", default=["t5-small", "bart-base", "nano-t5"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--rounds", type=int, default=2, help="each round runs all in turn, then in reverse"
    )
    parser.add_argument("--max-new-tokens", type=int, default=128)
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.rounds = ["nano-t5"], 1
        options.examples, options.max_new_tokens, options.batch = 4, 24, 2
    torch.set_num_threads(options.threads)
    settings = DecodingSettings(max_new_tokens=options.max_new_tokens, batch_size=options.batch)
    record: dict[str, Any] = {
        "fingerprint": fingerprint(torch.device("cpu"), torch.bfloat16, "beams").model_dump(),
        "quick": options.quick,
        "cases": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for shape in options.shapes:
        case = compare(shape, options.examples, options.rounds, settings)
        record["cases"].append(case)
        for name, contender in case["contenders"].items():
            same = f"{contender['same_outputs']} of {options.examples} outputs the same"
            print(f"{shape:10} {name:22} {contender['ratio']:.2f}x, {same}", flush=True)
        write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    print(f"Written: {options.out / FILE}")


if __name__ == "__main__":
    main()
