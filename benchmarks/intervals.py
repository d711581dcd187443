"""Test whether a profile's intervals hold in a second run: python benchmarks/intervals.py --help.

Runs `harness profile` twice. A cell is a recipe's relative speed; it holds if the second profile's
value lies within the first's interval, widened by the noise floor: what full fine-tuning differed
by from itself. Full fine-tuning is a cell too, and its value should be 1. It fails if too few cells
hold, or if a profile takes too long. The hard part is that intervals are narrow: it fails too where
they or the noise floor are so wide that anything holds, where recipes do not differ, and where the
second profile is the first one's numbers again.
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
    """Run the command; return what it found and the seconds that it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "harness", "profile", *arguments, "--json"]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Profile.model_validate_json(made), time.perf_counter() - began


def cell(first: Speed, second: Speed) -> dict[str, Any]:
    """Return whether the second value lies within the first's widened interval."""
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
"""Ratio of an interval's ends, and the noise floor, from which on holding says nothing."""


def check_cells(cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Fail where cells would hold whatever is measured, or were measured once."""
    for recipe, found in cells.items():
        low, high = found["interval"]
        demand(
            low > 0 and high / low < WIDEST and found["noise_floor"] < WIDEST,
            f"{recipe}'s interval, {low:.3f} to {high:.3f}, and its noise floor, "
            f"{found['noise_floor']:.3f}, hold anything: is the machine busy?",
        )
    again = all(found["first"] == found["second"] for found in cells.values())
    demand(not again, "the second profile has the first one's numbers")
    values = [found["first"] for found in cells.values()]
    demand(len(values) == 1 or max(values) > 1.05 * min(values), "recipes are equally fast")


def show(recipe: str, found: dict[str, Any]) -> None:
    """Print a row."""
    spans = ["{:.3f} - {:.3f}".format(*found[name]) for name in ("interval", "widened")]
    verdict = "holds" if found["holds"] else "does not hold"
    print(
        f"{recipe:16} {found['first']:7.3f} {spans[0]:>15} {found['noise_floor']:7.3f} "
        f"{spans[1]:>15} {found['second']:7.3f}  {verdict}"
    )


def main() -> int:
    """Profile twice, print and write what follows; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--backbone", default="nano-t5")
    parser.add_argument("--task", default="radiology_demo")
    parser.add_argument(
        "--compressor", default="full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun"
    )
    parser.add_argument("--steps", type=int, help="of a window")
    parser.add_argument("--repeats", type=int, help="rounds of windows")
    parser.add_argument("--most-failures", type=int, default=1, help="cells that need not hold")
    parser.add_argument("--limit", type=float, default=600, help="seconds a profile may take")
    options = parser.parse_args()
    names = ("backbone", "task", "compressor", "steps", "repeats")
    given = {name: getattr(options, name) for name in names}
    arguments = [w for name, value in given.items() if value for w in (f"--{name}", str(value))]
    (first, one), (second, other) = profile(arguments), profile(arguments)
    cells = {}
    print(f"{'':16} {'first':>7} {'95 % interval':>15} {'floor':>7} {'widened':>15} {'second':>7}")
    for before, after in zip(first.recipes, second.recipes, strict=True):
        assert before.speed
        assert after.speed
        assert before.speed.schedule_sha256 == after.speed.schedule_sha256
        cells[before.recipe] = cell(before.speed, after.speed)
        show(before.recipe, cells[before.recipe])
    check_cells(cells)
    failures = sum(not found["holds"] for found in cells.values())
    record = {
        "backbone": options.backbone,
        "task": options.task,
        "fingerprint": second.fingerprint.model_dump(),
        "seconds": [one, other],
        "cells": cells,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    print(
        f"{len(cells) - failures} of {len(cells)} hold; the profiles took {one:.0f} and "
        f"{other:.0f} s. Written: {options.out / FILE}"
    )
    return int(failures > options.most_failures or max(one, other) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
