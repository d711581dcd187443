"""Compare harness serve with a plain server, then mistreat it: python benchmarks/serving.py --help.

The peer is ``plain_server.py``: FastAPI around transformers' ``generate``, one text at a time, with
the same model, search, threads and texts. Clients send one text a request and wait for the answer,
1 to 256 of them at once. Both servers take turns at each number of clients, and the other one
idles. Clients and servers share the machine.

The hard part is what requests of real clients have: they come one by one, their texts have
different lengths, their search has beams and long outputs, and each must get the prediction of its
own text. Every answer is compared with the prediction that the model makes of the text alone. The
benchmark fails if a server answers wrongly, if texts or predictions are much alike, if no batch is
shared, or if a test does not do what it is for: an overload that refuses nothing, clients that
leave no text behind, a kill that interrupts no request.

Not measured: several models behind one server, a server on a machine of its own, and servers that
add requests to a batch that is being decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from demands import demand, demand_spread
from load_client import Answers, Clients, percentile
from mistreatment import check_answers, end_gracefully, kill_and_restart, overload, vanish
from served import Served, harness_command, plain_command, serving

from harness.backbones.nano import NanoT5
from harness.generation.loading import load_text_model
from harness.generation.text_model import TextModel
from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.spec.decoding import DecodingSettings

FILE, CHART = "serving.json", "serving.svg"
SERVERS = ("harness serve", "plain server")


def _sources(count: int) -> list[str]:
    """Return paragraphs of the documentation, whose lengths are those of prose."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    blocks = [block for page in pages for block in page.read_text().split("\n\n")]
    texts = [" ".join(block.split()) for block in blocks if block[:1].isalpha()]
    texts = [text for text in dict.fromkeys(texts) if 8 <= len(text.split()) <= 120]
    random.Random(0).shuffle(texts)
    return texts[:count]


def predict_alone(model: TextModel, texts: list[str]) -> dict[str, str]:
    """Return the prediction that the model makes of each text alone."""
    sources, truncated = model.encode(texts)
    demand(not truncated, f"{truncated} texts are longer than the model takes")
    return {text: model.predict([source])[0] for text, source in zip(texts, sources, strict=True)}


def distinct(expected: dict[str, str]) -> dict[str, str]:
    """Keep one text of each prediction, so that a swapped answer is always noticed."""
    return {text: prediction for prediction, text in {p: t for t, p in expected.items()}.items()}


def check_texts(expected: dict[str, str], longest: int) -> None:
    """End the program if texts are of equal length, or predictions short or much alike.

    Args:
        expected: text -> its prediction.
        longest: longest prediction in tokens.
    """
    demand_spread([len(text) for text in expected], "texts")
    words = sum(len(text.split()) for text in expected.values()) / len(expected)
    demand(words >= 0.15 * longest, f"predictions have {words:.1f} words of {longest} tokens")
    different = len(set(expected.values())) / len(expected)
    demand(different >= 0.8, f"{different:.0%} of the predictions are different")


def level(answers: Answers, concurrency: int) -> dict[str, Any]:
    """Return throughput and latencies at a number of clients."""
    return {
        "clients": concurrency,
        "requests": answers.good,
        "texts_per_s": answers.good / answers.wall_seconds,
        **{f"p{share}": percentile(answers.seconds, share / 100) for share in (50, 95, 99)},
    }


def measure_curve(
    servers: dict[str, Served], expected: dict[str, str], concurrencies: list[int], least: int
) -> dict[str, list[dict[str, Any]]]:
    """Measure both servers, in turn, at each number of clients."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    for server in servers.values():  # Lazy loading is not timed.
        asyncio.run(Clients(server.url, expected).closed_loop(2, 4))
    for place, concurrency in enumerate(concurrencies):
        order = list(servers) if place % 2 else list(servers)[::-1]
        for name in order:
            clients = Clients(servers[name].url, expected, seed=concurrency)
            count = max(least, concurrency)
            answers = asyncio.run(clients.closed_loop(concurrency, count))
            check_answers(answers, f"{name}, {concurrency} clients", count)
            rows[name].append(level(answers, concurrency))
            row = rows[name][-1]
            print(
                f"{name:14} {concurrency:4} clients  {row['texts_per_s']:6.2f} texts/s  "
                f"p50 {row['p50']:6.2f} s  p95 {row['p95']:6.2f} s  p99 {row['p99']:6.2f} s",
                flush=True,
            )
    return rows


def draw(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw throughput and latency against the number of clients; axes are logarithmic."""
    import altair as alt  # Part of the extra html.

    speed = [{"server": name, **row} for name in rows for row in rows[name]]
    delays = [
        {"server": name, "clients": row["clients"], "share": share, "seconds": row[share]}
        for name in rows
        for row in rows[name]
        for share in ("p50", "p95", "p99")
    ]
    clients = [row["clients"] for row in next(iter(rows.values()))]
    log = alt.Scale(type="log", base=2, nice=False)
    x = alt.X("clients:Q", title="clients at once", scale=log, axis=alt.Axis(values=clients))
    color = alt.Color(
        "server:N",
        title=None,
        scale=alt.Scale(domain=list(rows)),
        legend=alt.Legend(symbolType="stroke"),
    )
    left = (
        alt.Chart(alt.Data(values=speed), title="throughput")
        .mark_line(point=True)
        .encode(x=x, y=alt.Y("texts_per_s:Q", title="texts per second"), color=color)
    )
    dash = alt.StrokeDash("share:N", title=None)
    y = alt.Y("seconds:Q", title="seconds", scale=alt.Scale(type="log"))
    latency = alt.Chart(alt.Data(values=delays), title="latency").encode(x=x, y=y, color=color)
    right = latency.mark_line().encode(strokeDash=dash) + latency.mark_circle(opacity=1)
    panels = [panel.properties(width=330, height=240) for panel in (left, right)]
    # Room on the right: the text of a legend is measured with another font than a browser's.
    chart = alt.hconcat(*panels, padding={"left": 5, "top": 5, "right": 20, "bottom": 5})
    chart.configure_legend(symbolSize=400).save(str(path))


def main() -> None:
    """Measure, mistreat, print, and write the numbers and the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a smoke test: its numbers say little")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--texts", type=int, default=96, help="different texts")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--requests", type=int, default=24, help="least requests of a level")
    parser.add_argument("--overload-seconds", type=float, default=60)
    options = parser.parse_args()
    concurrencies = [2**power for power in range(9)]
    if options.quick:
        concurrencies, options.texts, options.max_new_tokens = [1, 8], 24, 16
        options.requests, options.overload_seconds = 8, 10
    torch.set_num_threads(options.threads)
    search = {"beams": 6, "max_new_tokens": options.max_new_tokens, "no_repeat_ngram": 3}
    with (
        tempfile.TemporaryDirectory() as name,
        load_text_model("nano-t5", device="cpu", precision="float32", settings=search) as model,
    ):
        folder = Path(name)
        NanoT5("nano-t5").load("pretrained").save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        expected = distinct(predict_alone(model, _sources(options.texts)))
        check_texts(expected, options.max_new_tokens)
        record = _measure(folder, search, expected, concurrencies, options)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    draw(record["curve"], options.out / CHART)
    print(f"Written: {options.out / FILE} and {CHART}")


def _measure(
    folder: Path,
    search: dict[str, int],
    expected: dict[str, str],
    concurrencies: list[int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    threads = options.threads
    load = os.getloadavg()
    ours = harness_command(folder, search, max_queue=1000, timeout=900, precision="float32")
    with serving(ours, threads) as own, serving(plain_command(folder, search), threads) as plain:
        servers = dict(zip(SERVERS, (own, plain), strict=True))
        curve = measure_curve(servers, expected, concurrencies, options.requests)
        batches = own.metric("harness_batch_texts_count")
        mean_batch = own.metric("harness_batch_texts_sum") / batches
    demand(mean_batch > 1.5, f"a batch has {mean_batch:.1f} texts: none is shared")
    capacity = max(row["texts_per_s"] for row in curve[SERVERS[0]])
    # A queue that the overload fills in some seconds.
    queue = 24 if options.quick else 64
    limited = harness_command(
        folder,
        search,
        max_queue=queue,
        timeout=20,
        # Some eight texts in a batch, so that others wait.
        batch_tokens=8 * search["beams"] * search["max_new_tokens"],
        precision="float32",
    )
    with serving(limited, threads) as server:
        abuse = {
            "overload": overload(server, expected, capacity, options.overload_seconds),
            "vanish": vanish(server, expected, capacity, queue - 2),
            "kill": kill_and_restart(server, expected, 60),
            "end": end_gracefully(server, expected, 24),
        }
    for name, found in abuse.items():
        print(f"{name}: {found}", flush=True)
    device = fingerprint(torch.device("cpu"), torch.float32, "beams").model_dump()
    return {
        "fingerprint": device,
        "quick": options.quick,
        "threads": threads,
        "load_before": load,
        "search": complete_search(search),
        "texts": len(expected),
        "mean_batch": mean_batch,
        "curve": curve,
        "ratio": [
            {"clients": a["clients"], "throughput": a["texts_per_s"] / b["texts_per_s"]}
            for a, b in zip(*(curve[name] for name in SERVERS), strict=True)
        ],
        **abuse,
    }


def complete_search(search: dict[str, int]) -> dict[str, Any]:
    """Return the complete settings of the search."""
    return DecodingSettings.model_validate(search).model_dump(exclude={"batch_size"})


if __name__ == "__main__":
    main()
