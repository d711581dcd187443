"""A table: the rows of a data file by column, and errors that name the file and the row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The rows of a file by column; a value that a row lacks is None.

    Attributes:
        path: the file or folder, for messages.
        columns: name -> values, as many in each.
        notes: what was guessed while reading, and the option that decides it.
    """

    path: Path
    columns: dict[str, list[object]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def text_column(table: Table, name: str) -> list[str | None]:
    """Return a column of texts and missing values.

    Raises:
        HarnessError: a value is not text; it names the row.
    """
    texts: list[str | None] = []
    for number, value in enumerate(table.columns[name], start=1):
        if value is not None and not isinstance(value, str):
            raise not_text(table, name, number, value)
        texts.append(value)
    return texts


def holds_lists(table: Table, name: str) -> bool:
    """Return whether the first value of a column is a list; all others must then be lists too."""
    return isinstance(next((v for v in table.columns[name] if v is not None), None), list)


def references_column(table: Table, name: str) -> list[list[str]]:
    """Return a column whose values are lists of texts, or a text; blank texts are left out.

    Raises:
        HarnessError: a value is neither; it names the row.
    """
    found: list[list[str]] = []
    for number, value in enumerate(table.columns[name], start=1):
        texts: list[str] = []
        for text in value if isinstance(value, list) else [value]:
            if text is not None and not isinstance(text, str):
                raise not_text(table, name, number, text)
            if text and not text.isspace():
                texts.append(text)
        found.append(texts)
    return found


def not_text(table: Table, name: str, number: int, value: object) -> HarnessError:
    """Return the error of a value where text belongs."""
    return HarnessError(
        f"{table.path}: row {number}, column {name!r}: {kind_of(value)} rather than text.",
        f"Name another column or turn its values into text. Columns: {', '.join(table.columns)}",
    )


def kind_of(value: object) -> str:
    """Return what a value is, in a user's words."""
    names = {list: "a list", dict: "an object", bool: "true or false", bytes: "bytes"}
    names |= {int: "a number", float: "a number", str: "text", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def holds_half_pair(value: object) -> bool:
    """Return whether a text, or one within, holds half of a surrogate pair, which is no text."""
    if isinstance(value, str):
        # Most texts are ASCII, which is known without a look at each character.
        return not value.isascii() and _HALF_PAIR.search(value) is not None
    if isinstance(value, list):
        return any(map(holds_half_pair, value))
    if isinstance(value, dict):
        return any(map(holds_half_pair, value)) or any(map(holds_half_pair, value.values()))
    return False


def malformed(path: Path, place: str, problem: str) -> HarnessError:
    """Return the error of a file that breaks the rules of its format."""
    return HarnessError(
        f"{path}: {place}: {problem}.",
        "JSONL holds one object a line, JSON a list of objects, CSV a header and rows of as many "
        "cells; all in UTF-8, unless an encoding is named: --encoding NAME",
    )


def require_distinct(path: Path, names: list[str]) -> None:
    """Make sure that no two columns have one name.

    Raises:
        HarnessError: two have.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise malformed(path, "the header", f"names a column twice: {', '.join(twice)}")
