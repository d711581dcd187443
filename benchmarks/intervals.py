"""Test whether a profile's intervals hold in a second run: python benchmarks/intervals.py --help.

The program runs `harness profile` twice. A cell is the relative speed of a recipe. It holds if the
second value lies within the first interval, widened by the noise floor, the difference of full
fine-tuning from itself. Full fine-tuning is a cell too; its value should be 1. The program fails if
too few cells hold, or if a profile takes too long.

Intervals must be narrow for this to mean something. The program therefore also fails if intervals
or the noise floor are so wide that any value holds, if recipes do not differ, and if both profiles
have the same numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demands import demand

from harness.records.atomic import write_text
from harness.records.measurements import Speed
from harness.records.profile import Profile

FILE = "intervals.json"


def profile(arguments: list[str]) -> tuple[Profile, float]:
    """Run ``harness profile``; return the profile and the seconds that it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "harness", "profile", *arguments, "--json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Profile.model_validate_json(output), time.perf_counter() - began


def cell(first: Speed, second: Speed) -> dict[str, Any]:
    """Return the values of a cell, and whether the second lies within the widened interval."""
    assert first.relative_ci
    assert first.noise_floor
    assert second.relative
    low, high = first.relative_ci
    widened = low / first.noise_floor, high * first.noise_floor
    return {
        "first": first.relative,
        "interval": first.relative_ci,
        "noise_floor": first.noise_floor,
        "widened": widened,
        "second": second.relative,
        "holds": widened[0] <= second.relative <= widened[1],
    }


WIDEST = 1.5
"""Ratio of an interval's ends, or noise floor, from which any value would hold."""


def check_cells(cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Fail if cells would hold for any value, or both profiles have the same numbers."""
    for recipe, values in cells.items():
        low, high = values["interval"]
        demand(
            low > 0 and high / low < WIDEST and values["noise_floor"] < WIDEST,
            f"{recipe}'s interval, {low:.3f} to {high:.3f}, and its noise floor, "
            f"{values['noise_floor']:.3f}, hold anything: is the machine busy?",
        )
    repeated = all(values["first"] == values["second"] for values in cells.values())
    demand(not repeated, "the second profile has the first one's numbers")
    speeds = [values["first"] for values in cells.values()]
    demand(len(speeds) == 1 or max(speeds) > 1.05 * min(speeds), "recipes are equally fast")


def show(recipe: str, found: dict[str, Any]) -> None:
    """Print the row of a cell."""
    spans = ["{:.3f} - {:.3f}".format(*found[name]) for name in ("interval", "widened")]
    verdict = "holds" if found["holds"] else "does not hold"
    print(
        f"{recipe:16} {found['first']:7.3f} {spans[0]:>15} {found['noise_floor']:7.3f} "
        f"{spans[1]:>15} {found['second']:7.3f}  {verdict}"
    )


def main() -> int:
    """Profile twice; print and write the cells; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--backbone", default="nano-t5")
    parser.add_argument("--task", default="radiology_demo")
    parser.add_argument(
        "--compressor", default="full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun"
    )
    parser.add_argument("--steps", type=int, help="steps of a window")
    parser.add_argument("--repeats", type=int, help="rounds of windows")
    parser.add_argument(
        "--most-failures", type=int, default=1, help="number of cells that may fail"
    )
    parser.add_argument("--limit", type=float, default=600, help="maximum seconds of a profile")
    options = parser.parse_args()
    names = ("backbone", "task", "compressor", "steps", "repeats")
    given = {name: getattr(options, name) for name in names}
    arguments = [w for name, value in given.items() if value for w in (f"--{name}", str(value))]
    (first, first_seconds), (second, second_seconds) = profile(arguments), profile(arguments)
    cells = {}
    print(f"{'':16} {'first':>7} {'95 % interval':>15} {'floor':>7} {'widened':>15} {'second':>7}")
    for first_row, second_row in zip(first.recipes, second.recipes, strict=True):
        assert first_row.speed
        assert second_row.speed
        assert first_row.speed.schedule_sha256 == second_row.speed.schedule_sha256
        cells[first_row.recipe] = cell(first_row.speed, second_row.speed)
        show(first_row.recipe, cells[first_row.recipe])
    check_cells(cells)
    failures = sum(not values["holds"] for values in cells.values())
    record = {
        "backbone": options.backbone,
        "task": options.task,
        "fingerprint": second.fingerprint.model_dump(),
        "seconds": [first_seconds, second_seconds],
        "cells": cells,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    print(
        f"{len(cells) - failures} of {len(cells)} hold; the profiles took {first_seconds:.0f} and "
        f"{second_seconds:.0f} s. Written: {options.out / FILE}"
    )
    return int(
        failures > options.most_failures or max(first_seconds, second_seconds) > options.limit
    )


if __name__ == "__main__":
    sys.exit(main())
