"""Write the matrix of docs/methods.md and results/matrix.json: python scripts/methods_matrix.py.

What a method can do comes from the outcomes of its checks on three families, which the slow tests
compare; ``make check-compressors`` finds them again. Sizes are planned for one shape. Speed and
memory are those that ``make study-costs`` measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness
from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.reporting.profiled_costs import read_profile
from harness.testing.matrix import COLUMNS, matrix_of
from harness.testing.outcomes import read_outcomes
from harness.testing.result import MARKS

ROOT = Path(__file__).parents[1]
OUTCOMES = ROOT / "tests" / "harness" / "testing" / "expected.json"
PAGE = ROOT / "docs" / "methods.md"
MATRIX = ROOT / "results" / "matrix.json"
PROFILE = ROOT / "results" / "study"
"""Folder with the profile of the study."""
_NEXT = "## Layers\n"
"""Heading before which the table is added."""
SHAPE = "t5-small"
"""Backbone whose parameters and bytes the matrix has."""
_UNDER = {
    "cache_encoder": "cache_encoder+freeze:encoder_top=0",
    "int8": "int8+lora_ff",
    "nf4": "lora_ff+nf4",
}
"""Compressor that is refused alone -> the recipe that its row is of."""
_NOT_MEASURED = "not measured"
_HEAD = f"| method | {' | '.join(COLUMNS)} | trained | file | speed | memory |\n"


def probed() -> dict[str, Any]:
    """Return what is known of all methods, with their sizes and costs."""
    rows = matrix_of(read_outcomes(OUTCOMES))
    recipes = {row.recipe: _UNDER.get(row.recipe, row.recipe) for row in rows}
    return {
        "shape": SHAPE,
        "rows": [row.model_dump() for row in rows],
        "recipes": recipes,
        "sizes": {recipe: _sizes(recipe) for recipe in recipes.values()},
        "costs": _costs(),
    }


def _sizes(recipe: str) -> dict[str, Any]:
    try:
        (plan,) = harness.plan(SHAPE, [recipe])
    except HarnessError as error:
        return {"trained": None, "bytes": None, "reason": error.message}
    storage = plan.storage
    return {"trained": plan.parameters.trainable, "bytes": storage.bytes_per_task, "reason": None}


def _costs() -> dict[str, dict[str, float | None]]:
    """Return recipe -> measured speed and memory relative to full fine-tuning."""
    profile = read_profile(PROFILE)
    return {
        row.recipe: {"speed": row.speed.relative, "memory": row.memory.relative}
        for row in (profile.recipes if profile else ())
        if row.speed and row.memory
    }


def matrix(found: dict[str, Any]) -> str:
    """Return the matrix in Markdown: a mark, or the families for which it holds."""
    lines = [_HEAD, f"| {' | '.join(['---'] * (len(COLUMNS) + 5))} |\n"]
    for name, recipe in found["recipes"].items():
        rows = [row for row in found["rows"] if row["recipe"] == name]
        size, costs = found["sizes"][recipe], found["costs"].get(recipe, {})
        trained, stored = size["trained"], size["bytes"]
        cells = [
            f"`{recipe}`",
            *(_cell(row["abilities"][column] | row for row in rows) for column in COLUMNS),
            "" if trained is None else f"{trained:,}",
            "" if stored is None else f"{stored / 2**10:,.0f} KiB",
            *(_share(costs.get(cost)) for cost in ("speed", "memory")),
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _share(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{100 * value:.0f} %"


def _cell(found: Iterable[dict[str, Any]]) -> str:
    """Return the mark of all families, or each mark with its families."""
    by_mark: dict[str, list[str]] = {}
    for cell in found:
        by_mark.setdefault(MARKS[cell["outcome"]], []).append(cell["family"])
    if len(by_mark) == 1:
        return next(iter(by_mark))
    return "; ".join(f"{mark} {', '.join(families)}" for mark, families in by_mark.items())


def main() -> None:
    """Write the matrix, and replace the table of the page or add it."""
    found = probed()
    write_text(MATRIX, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    table = matrix(found)
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
