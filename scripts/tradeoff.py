"""Draw the README's chart of a folder of runs: python scripts/tradeoff.py results/sweep.

The chart plots the first metric against training speed and against peak memory, with intervals and
the Pareto front, as the page of ``harness report --format html`` does. Needs the extra ``html``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import vl_convert

from harness.records.atomic import write_text
from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.page.charts import tradeoff
from harness.reporting.paired_comparison import Comparisons

INK = "#57606a"
"""Readable on white and on dark pages: the chart has no background of its own."""
WIDTH, HEIGHT = 330, 240


def draw(results: Path) -> str:
    """Return an SVG with one panel for speed and one for memory."""
    runs, _ = read_runs(results)
    summary = summarize(runs, Comparisons(None))
    group, metric = summary.groups[0], summary.metrics[0]
    panels: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    for against in ("speed", "memory"):
        panel = tradeoff(group, metric, against)
        if panel is None:
            raise SystemExit(f"No run in {results} has {against} and {metric}.")
        config = panel.pop("config")
        panels.append(panel | {"width": WIDTH, "height": HEIGHT})
    chart = {"hconcat": panels, "config": config | {"background": None}, "spacing": 30}
    return str(vl_convert.vegalite_to_svg(json.dumps(chart).replace("currentColor", INK)))


def main() -> None:
    """Write the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of runs")
    parser.add_argument("--out", type=Path, default=Path("docs/tradeoff.svg"))
    options = parser.parse_args()
    write_text(options.out, draw(options.results) + "\n")


if __name__ == "__main__":
    main()
