"""Files with their sizes, as several commands print them."""

from __future__ import annotations

from collections.abc import Mapping

import typer


def print_sizes(files: Mapping[str, int]) -> None:
    """Print a line for each file, and one for all of them.

    Args:
        files: name of a file -> bytes.
    """
    width = max(map(len, files))
    for name, size in files.items():
        typer.echo(f"  {name:<{width}}  {readable(size):>10}")
    typer.echo(f"  {'all':<{width}}  {readable(sum(files.values())):>10}\n")


def readable(size: float) -> str:
    """Write a number of bytes with a unit."""
    units = ["B", "kB", "MB"]
    while size >= 1000 and units:
        size, _ = size / 1000, units.pop(0)
    unit = units[0] if units else "GB"
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
