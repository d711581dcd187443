"""Draw what a GPU and its processor do during one training step: python scripts/step_timeline.py.

Reads ``kernels.json`` of a card, which ``make gpu`` writes, and draws the trainer's step above the
harness's on one axis of time. The profile holds the total time of each kind of kernel. So the kinds
are drawn one after another, in the order of the legend, and not in the order in which kernels ran.
Needs the extra ``html``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import vl_convert

from harness.records.atomic import write_text

CASES = ("t5-large lora_ff+lprun", "bart-large lora_ff+lprun")
WHO = {"trainer": "Seq2SeqTrainer + PEFT", "harness": "harness"}
WORK = {
    "processor prepares and launches": "#8c959f",
    "products": "#0969da",
    "attention": "#8250df",
    "element-wise": "#bf8700",
    "copies": "#cf222e",
    "optimizer": "#1a7f37",
    "GPU waits": "#d8dee4",
}
"""Work -> its color, in the order of drawing."""
INK = "#57606a"
"""Readable on white and on dark pages: the chart has no background of its own."""
WIDTH, STEP = 620, 22


def lanes(who: str, profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of a step: a lane of the processor and one of the GPU.

    Args:
        who: name of the program.
        profile: the measurements of its step.
    """
    kinds = profile["device_ms_by_kind"]
    # Kernels of several streams may overlap, so that kinds add up to more than the busy time.
    scale = profile["device_ms"] / sum(kinds.values())
    gpu = {kind: scale * kinds.get(kind, 0.0) for kind in WORK if kind in kinds}
    gpu["GPU waits"] = profile["idle_ms"]
    bars, lane, end = [], f"{who}: GPU", 0.0
    for work, milliseconds in gpu.items():
        bars.append({"lane": lane, "work": work, "from": end, "to": end + milliseconds})
        end += milliseconds
    launching = {"work": "processor prepares and launches", "from": 0.0, "to": profile["host_ms"]}
    return [{"lane": f"{who}: processor", **launching}, *bars]


def panel(case: str, cases: dict[str, Any]) -> dict[str, Any]:
    """Return the chart of one recipe on one backbone."""
    bars = [bar for key, who in WHO.items() for bar in lanes(who, cases[f"{case} {key}"])]
    order = [*dict.fromkeys(bar["lane"] for bar in bars)]
    totals = ", ".join(
        f"{who} {cases[f'{case} {key}']['step_ms']:.1f} ms" for key, who in WHO.items()
    )
    return {
        "title": {"text": f"One step of {case}: {totals}", "anchor": "start"},
        "width": WIDTH,
        "height": {"step": STEP},
        "data": {"values": bars},
        "mark": "bar",
        "encoding": {
            "y": {"field": "lane", "type": "nominal", "sort": order, "title": None},
            "x": {"field": "from", "type": "quantitative", "title": "milliseconds"},
            "x2": {"field": "to"},
            "color": {
                "field": "work",
                "type": "nominal",
                "title": None,
                "scale": {"domain": [*WORK], "range": [*WORK.values()]},
            },
        },
    }


def draw(kernels: dict[str, Any]) -> str:
    """Return an SVG of the steps in a card's profile."""
    ink = {"labelColor": INK, "titleColor": INK}
    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "vconcat": [panel(case, kernels["cases"]) for case in CASES],
        "background": None,
        "config": {
            "axis": {**ink, "gridOpacity": 0.4, "labelLimit": 260},
            "legend": {**ink, "orient": "bottom"},
            "title": {"color": INK, "fontSize": 12},
            "view": {"stroke": None},
        },
    }
    return str(vl_convert.vegalite_to_svg(json.dumps(chart)))


def main() -> None:
    """Write the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("card", type=Path, nargs="?", default=Path("results/gpu/nvidia-h200"))
    folder = parser.parse_args().card
    kernels = json.loads((folder / "kernels.json").read_text("utf-8"))
    write_text(folder / "step.svg", draw(kernels) + "\n")


if __name__ == "__main__":
    main()
