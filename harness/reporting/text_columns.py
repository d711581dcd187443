"""Lay out thousands of rows in columns; rich's table would take seconds for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
from rich.cells import cell_len, chop_cells

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Line(NamedTuple):
    """A row of cells, of which only the first is aligned left, and its ``click.style``."""

    cells: Sequence[str]
    color: str | None = None
    bold: bool = False
    dim: bool = False


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey: names come from data."""
    return _CONTROL.sub("\ufffd", text)


def in_columns(lines: Sequence[Line], width: int) -> Iterator[str]:
    """Yield the lines with their cells aligned.

    Args:
        lines: rows with the same number of cells.
        width: the width of the terminal. If it is too small, the first cell of a row is folded;
            the other cells are never truncated.
    """
    rows = [[printable(cell) for cell in line.cells] for line in lines]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    room = max(12, width - sum(widths[1:]) - len(widths) + 1)
    widths[0] = min(widths[0], room)
    for line, (first, *others) in zip(lines, rows, strict=True):
        folded = chop_cells(first, widths[0]) if cell_len(first) > widths[0] else [first]
        sizes = zip(others, widths[1:], strict=True)
        right = (" " * (size - cell_len(cell)) + cell for cell, size in sizes)
        left = folded[0] + " " * (widths[0] - cell_len(folded[0]))
        for text in (" ".join([left, *right]), *folded[1:]):
            yield _styled(text.rstrip(), line)


def _styled(text: str, line: Line) -> str:
    """Return the text with the line's style, or unchanged if the line has none."""
    if not (line.color or line.bold or line.dim):
        return text
    return click.style(text, fg=line.color, bold=line.bold or None, dim=line.dim or None)
