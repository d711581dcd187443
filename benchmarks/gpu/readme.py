"""Write results/gpu/README.md from the results of the steps: ``python -m gpu.readme FOLDER``.

The tables also hold the paper's figures from an A40, and earlier estimates.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpu.step_list import STEPS
from harness.records.atomic import write_text
from harness.reporting.paper import paper_cell

STATE = "steps.json"
ESTIMATES = Path(__file__).with_name("estimates.json")
PAPER_TASK = "mimic_radiology"
NONE = "-"
HEAD = """# On a GPU

`make gpu` writes this page, see [docs/gpu.md](../../docs/gpu.md); do not edit it. A dash means that
a value was not measured. Weights are random. Speed is training speed; full fine-tuning is 100 %.
The paper's figures are those of its radiology reports, on an A40. Estimates are for an H100, and
were computed before anything ran.
"""
Cases = dict[str, Any]


def write_readme(folder: Path) -> Path:
    """Write the page of a folder, which holds one folder per card or the results of one card."""
    cards = [folder] if (folder / "card.json").is_file() else sorted(folder.iterdir())
    sections = [card_section(path) for path in cards if is_shown(path, alone=path == folder)]
    write_text(folder / "README.md", "\n".join([HEAD, *sections]).rstrip() + "\n")
    return folder / "README.md"


def is_shown(folder: Path, alone: bool) -> bool:
    """Return whether a folder holds results; a rehearsal is shown only on a page of its own."""
    return bool(read(folder / "card.json")) and (alone or not read(folder / STATE).get("tiny"))


def card_section(folder: Path) -> str:
    """Return the section of one card."""
    card = read(folder / "card.json")
    cases = {step.name: read(folder / f"{step.name}.json").get("cases", {}) for step in STEPS}
    fingerprint = card.get("fingerprint", {})
    versions = fingerprint.get("versions", {})
    software = [f"PyTorch {versions.get('torch', NONE)}", f"CUDA {card.get('cuda', NONE)}"]
    software += [f"cuDNN {card.get('cudnn', NONE)}", f"driver {fingerprint.get('driver') or NONE}"]
    parts = [
        f"## {card['name']}\n",
        f"{', '.join(software)}; {fingerprint.get('attention', NONE)}.\n",
    ]
    state = read(folder / STATE)
    if state.get("tiny"):
        parts.append("A rehearsal at tiny size: these numbers mean nothing.\n")
    parts.append(steps_table(state.get("steps", {})))
    for title, rows in (
        ("Recipes beside full fine-tuning", speed_rows(cases["speed"])),
        ("Training beside Seq2SeqTrainer + PEFT", peer_rows(cases["peer"])),
        ("A step, by torch.profiler", kernel_rows(cases["kernels"])),
        ("Decoding with six beams", decoding_rows(cases["decoding"])),
        ("Decoding with a recipe's merged model", inference_rows(cases["inference"])),
    ):
        lines = list(rows)
        if len(lines) > 1:
            parts += [f"### {title}\n", table(lines)]
    return "\n".join(parts)


def steps_table(states: Cases) -> str:
    """Return the table of the steps with their status."""
    rows = [["step", "", "seconds", ""]]
    for step in STEPS:
        state = states.get(step.name, {"status": "not run", "seconds": NONE, "summary": ""})
        summary = str(state["summary"]).replace("|", "/")
        rows.append([step.title, state["status"], str(state["seconds"]), summary])
    return table(rows)


def speed_rows(cases: Cases) -> Iterator[list[str]]:
    """Yield relative speed and memory of each recipe, with those of the paper."""
    own = ("batches", "recipe", "speed", "95 %", "A/A", "of the FLOP limit", "tokens/s", "full's")
    yield [*own, "peak GB", "full's", "paper's A40: speed", "peak GB"]
    for case in cases.values():
        row = case.get("row")
        if row is None:
            continue
        workload = case["workload"]
        printed = paper_cell(workload.partition(" ")[0], row["recipe"], PAPER_TASK)
        speed, memory = row["speed"] or {}, row["memory"] or {}
        low, high = speed.get("relative_ci") or (None, None)
        yield [
            workload,
            row["recipe"] if row["status"] == "ok" else f"{row['recipe']} ({row['status']})",
            percent(speed.get("relative")),
            NONE if low is None else f"{percent(low)} to {percent(high)}",
            percent(speed.get("noise_floor")),
            percent(speed.get("share_of_limit")),
            number(speed.get("tokens_per_s")),
            number(of_full(speed, "tokens_per_s")),
            number(memory.get("peak_bytes"), 1e9, 2),
            number(of_full(memory, "peak_bytes"), 1e9, 2),
            NONE if printed is None else f"{printed.speed_pct:.0f} %",
            NONE if printed is None else f"{printed.mem_gb:.1f}",
        ]


def of_full(measured: dict[str, Any], what: str) -> float | None:
    """Return a measurement of full fine-tuning, from a recipe's and their ratio."""
    relative = measured.get("relative")
    return measured[what] / relative if relative else None


def peer_rows(cases: Cases) -> Iterator[list[str]]:
    """Yield rates of the harness and of the best peer."""
    yield ["", "best peer", "ours, tokens/s", "peer's", "ratio", "95 %", "memory, of the peer's"]
    for name, case in cases.items():
        if "speed_ratio" not in case:
            continue
        low, high = case["speed_ratio_ci"] or (None, None)
        yield [
            name,
            case["peer"],
            number(case["tokens_per_s"][case["ours"]]),
            number(case["tokens_per_s"][case["peer"]]),
            f"{case['speed_ratio']:.2f}",
            NONE if low is None else f"{low:.2f} to {high:.2f}",
            percent(case["memory_ratio"]),
        ]


def kernel_rows(cases: Cases) -> Iterator[list[str]]:
    """Yield launches and milliseconds of a step, with estimates."""
    estimates = {f"{e['backbone']} {e['recipe']}": e for e in read(ESTIMATES)["steps"]}
    kinds = ("products", "attention", "element-wise", "copies", "optimizer")
    yield ["", "launches", "estimated", "step, ms", "host", "device", "estimated", *kinds, "idle"]
    for name, case in cases.items():
        if "launches" not in case:
            continue
        work, _, contender = name.rpartition(" ")
        estimate = estimates.get(work, {})
        is_harness = contender == "harness"
        yield [
            name,
            number(case["launches"]),
            number(estimate.get("launches" if is_harness else "trainer_launches")),
            *(number(case[f"{what}_ms"], 1, 1) for what in ("step", "host", "device")),
            number(estimate.get("device_ms_skewed") if is_harness else None),
            *(number(case["device_ms_by_kind"].get(kind, 0), 1, 1) for kind in kinds),
            number(case["idle_ms"], 1, 1),
        ]


def decoding_rows(cases: Cases) -> Iterator[list[str]]:
    """Yield rates of both searches."""
    yield ["", "ours, examples/s", "transformers' own", "ratio", "same predictions"]
    for name, case in cases.items():
        if "ratio" in case:
            rates = case["examples_per_s"]
            same = f"{case['same']} of {case['examples']}"
            both = [number(rates[w], 1, 1) for w in ("harness", "transformers")]
            yield [name, *both, f"{case['ratio']:.2f}", same]


def inference_rows(cases: Cases) -> Iterator[list[str]]:
    """Yield the costs of decoding relative to full fine-tuning."""
    yield ["", "one example, ms", "speed", "95 %", "tokens/s in a batch", "speed", "memory", "size"]
    for name, case in cases.items():
        if not case.get("latency"):
            continue
        latency, throughput = case["latency"], case.get("throughput") or {}
        low, high = latency["relative_ci"] or (None, None)
        yield [
            name,
            number(latency["median_seconds"], 1e-3, 1),
            percent(latency["relative"]),
            NONE if low is None else f"{percent(low)} to {percent(high)}",
            number(throughput.get("output_tokens_per_s")),
            percent(throughput.get("relative")),
            percent(case["memory"]["relative"]),
            percent(case["size"]["model_relative"]),
        ]


def table(rows: Iterable[list[str]]) -> str:
    """Return rows as a Markdown table; the first row is the heading."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * (head.count('|') - 1)}", *body, ""])


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return NONE if value is None else f"{100 * value:.0f} %"


def number(value: float | None, unit: float = 1, places: int = 0) -> str:
    """Return a number in a unit."""
    return NONE if value is None else f"{value / unit:,.{places}f}"


def read(file: Path) -> dict[str, Any]:
    """Return the record in a file; it is empty if the file is missing or unreadable."""
    record: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(file.read_text("utf-8"))
    return record


if __name__ == "__main__":
    print(write_readme(Path(sys.argv[1])))
