"""Write the table of equal trainings in docs/sharding.md: python scripts/equality_table.py.

It is made from results/benchmarks/equal_processes.json; results/README.md says how to measure that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records.atomic import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sharding.md"
MEASURED = ROOT / "results" / "benchmarks" / "equal_processes.json"
SHAPES = {"TinyT5": "T5", "TinyGatedT5": "gated T5", "TinyBart": "BART"}
"""Tiny model of the tests -> its shape."""
COLUMNS = {
    "ddp, 2": ("ddp", 2),
    "ddp, 4": ("ddp", 4),
    "fsdp, 2": ("fsdp", 2),
    "fsdp, 4": ("fsdp", 4),
}
"""Heading -> engine and number of processes."""
_HEAD = f"| recipe | shape | {' | '.join(COLUMNS)} |\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown, with a row for each recipe and shape.

    Args:
        rows: the largest differences, which a test has measured.
    """
    cells = {
        (row["recipe"], row["family"], (row["parallel"], row["processes"])): (
            f"{row['loss']:.0e} / {row['weight']:.0e}"
        )
        for row in rows
    }
    lines = [_HEAD, f"| {' | '.join(['---'] * (len(COLUMNS) + 2))} |\n"]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        for family, shape in SHAPES.items():
            own = [cells[recipe, family, column] for column in COLUMNS.values()]
            lines.append(f"| `{recipe}` | {shape} | {' | '.join(own)} |\n")
    return "".join(lines)


def main() -> None:
    """Replace the table of the page."""
    text = PAGE.read_text("utf-8")
    old = re.search(rf"(?m)^{re.escape(_HEAD)}(?:\|.*\n)+", text)
    if old is None:
        raise ValueError(f"{PAGE} has no table that begins with {_HEAD!r}")
    write_text(PAGE, text.replace(old[0], table(json.loads(MEASURED.read_text("utf-8")))))


if __name__ == "__main__":
    main()
