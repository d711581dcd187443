"""Write the matrix of docs/methods.md: python scripts/methods_matrix.py [--probe].

It is made from results/matrix.json. --probe tries all methods on all families again and writes that
file, which takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness
from compressors.methods import METHODS
from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.testing.matrix import COLUMNS, find_matrix
from harness.testing.result import MARKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
MATRIX = ROOT / "results" / "matrix.json"
_NEXT = "## Layers\n"
"""Heading before which the table is added."""
SHAPE = "t5-small"
"""Backbone whose parameters and bytes the matrix has."""
_CHOSEN = {"peft": "peft:type=lily"}
"""Method -> recipe, where an option is required."""
_HEAD = f"| method | {' | '.join(COLUMNS)} | trained | file |\n"


def probe() -> dict[str, Any]:
    """Try all methods on all families, and count their parameters on one shape."""
    recipes = ["full", "lprun", *(_CHOSEN.get(name, name) for name in METHODS)]
    rows = find_matrix(recipes, installed(), on_row=lambda row: print(row.recipe, row.family))  # noqa: T201
    return {
        "shape": SHAPE,
        "rows": [row.model_dump() for row in rows],
        "sizes": {recipe: _sizes(recipe) for recipe in recipes},
    }


def _sizes(recipe: str) -> dict[str, Any]:
    try:
        (plan,) = harness.plan(SHAPE, [recipe])
    except HarnessError as error:
        return {"trained": None, "bytes": None, "reason": error.message}
    storage = plan.storage
    return {"trained": plan.parameters.trainable, "bytes": storage.bytes_per_task, "reason": None}


def matrix(found: dict[str, Any]) -> str:
    """Return the matrix in Markdown: a mark, or the families for which it holds."""
    lines = [_HEAD, f"| {' | '.join(['---'] * (len(COLUMNS) + 3))} |\n"]
    for recipe, size in found["sizes"].items():
        rows = [row for row in found["rows"] if row["recipe"] == recipe]
        trained, stored = size["trained"], size["bytes"]
        cells = [
            f"`{recipe}`",
            *(_cell(row["abilities"][column] | row for row in rows) for column in COLUMNS),
            "" if trained is None else f"{trained:,}",
            "" if stored is None else f"{stored / 2**10:,.0f} KiB",
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _cell(found: Iterable[dict[str, Any]]) -> str:
    """Return the mark of all families, or each mark with its families."""
    by_mark: dict[str, list[str]] = {}
    for cell in found:
        by_mark.setdefault(MARKS[cell["outcome"]], []).append(cell["family"])
    if len(by_mark) == 1:
        return next(iter(by_mark))
    return "; ".join(f"{mark} {', '.join(families)}" for mark, families in by_mark.items())


def main() -> None:
    """Replace the table of the page, or add it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--probe", action="store_true", help="try all methods again; minutes")
    if parser.parse_args().probe:
        write_text(MATRIX, json.dumps(probe(), indent=1, ensure_ascii=False) + "\n")
    table = matrix(json.loads(MATRIX.read_text("utf-8")))
    text = PAGE.read_text("utf-8")
    old = re.search(rf"(?m)^{re.escape(_HEAD)}(?:\|.*\n)+", text)
    if old is not None:
        text = text.replace(old[0], table)
    elif _NEXT in text:
        text = text.replace(_NEXT, f"{table}\n{_NEXT}", 1)
    else:
        raise ValueError(f"{PAGE} has neither the table nor {_NEXT!r}")
    write_text(PAGE, text)


if __name__ == "__main__":
    main()
