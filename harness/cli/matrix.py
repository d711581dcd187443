"""The table of ``harness list compressors --matrix``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from harness.testing.matrix import MatrixRow


def show_matrix(name: str | None, as_json: bool) -> None:
    """Try all compressors, or one, on tiny models of each family, and print what they can do.

    Args:
        name: the compressor, with options; None tries all that need no options.
        as_json: print JSON, with the reasons.
    """
    from harness.api.plugins import installed
    from harness.testing.matrix import find_matrix

    plugins = installed()
    recipes = [name] if name else without_required_options()

    def on_row(row: MatrixRow) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{row.recipe} on {row.family}")
            sys.stderr.flush()

    rows = find_matrix(recipes, plugins, on_row=on_row)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if as_json:
        typer.echo(json.dumps([row.model_dump() for row in rows], indent=2))
    else:
        _print(rows)


def without_required_options() -> list[str]:
    """Return the compressors that can be in a recipe by their names alone."""
    from harness.api.plugins import installed

    return [
        entry.name
        for entry in installed().compressors
        if not any(f.is_required() for f in entry.load().Options.model_fields.values())
    ]


def _print(rows: Sequence[MatrixRow]) -> None:
    from harness.testing.matrix import COLUMNS
    from harness.testing.result import MARKS

    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("recipe", "family", *COLUMNS):
        table.add_column(column, no_wrap=column in ("recipe", "family"))
    for row in rows:
        table.add_row(row.recipe, row.family, *(MARKS[row.abilities[c].outcome] for c in COLUMNS))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "✓ tried and right, - not possible, ✗ wrong. --json has the reasons.", style="dim"
    )
    if any(cell.outcome == "failed" for row in rows for cell in row.abilities.values()):
        raise typer.Exit(1)
