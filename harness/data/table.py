"""A table: the rows of a data file by column, with errors that name the file and the row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError

_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The rows of a file by column; missing values are None.

    Attributes:
        path: the file or folder, for messages.
        columns: name -> values; all columns have the same length.
        notes: sentences on guesses made while reading, with the option that overrides them.
        first_row: number of the first row in the file; more than 1 if this is a piece of it.
    """

    path: Path
    columns: dict[str, list[object]]
    notes: tuple[str, ...] = ()
    first_row: int = 1

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    @classmethod
    def joined(cls, path: Path, pieces: Iterable[Table]) -> Table:
        """Join consecutive pieces; a column that a piece lacks has missing values there."""
        columns: dict[str, list[object]] = {}
        notes: tuple[str, ...] = ()
        rows = 0
        for piece in pieces:
            notes = piece.notes
            for name, values in piece.columns.items():
                columns.setdefault(name, [None] * rows).extend(values)
            rows += len(piece)
            for values in columns.values():
                values.extend([None] * (rows - len(values)))
        return cls(path, columns, notes)

    def with_columns(self, names: Iterable[str]) -> Table:
        """Return the same rows with these columns; a column that is not there has missing
        values."""
        missing: list[object] = [None] * len(self)
        columns = {name: self.columns.get(name, missing) for name in names}
        return replace(self, columns=columns)


def text_column(table: Table, name: str) -> list[str | None]:
    """Return a column of texts and missing values.

    Raises:
        HarnessError: a value is not text; the message names the row.
    """
    texts: list[str | None] = []
    for number, value in enumerate(table.columns[name], start=table.first_row):
        if value is not None and not isinstance(value, str):
            raise not_text(table, name, number, value)
        texts.append(value)
    return texts


def holds_lists(table: Table, name: str) -> bool:
    """Return whether the first value of a column is a list; the others must then be lists too."""
    return isinstance(next((v for v in table.columns[name] if v is not None), None), list)


def references_column(table: Table, name: str) -> list[list[str]]:
    """Return a column whose values are texts or lists of texts; blank texts are left out.

    Raises:
        HarnessError: a value is neither; the message names the row.
    """
    references: list[list[str]] = []
    for number, value in enumerate(table.columns[name], start=table.first_row):
        texts: list[str] = []
        for text in value if isinstance(value, list) else [value]:
            if text is not None and not isinstance(text, str):
                raise not_text(table, name, number, text)
            if text and not text.isspace():
                texts.append(text)
        references.append(texts)
    return references


def not_text(table: Table, name: str, number: int, value: object) -> HarnessError:
    """Return the error for a value that should be text."""
    return HarnessError(
        f"{table.path}: row {number}, column {name!r}: {kind_of(value)} instead of text.",
        f"Name another column, or convert its values to text. Columns: {', '.join(table.columns)}",
    )


def kind_of(value: object) -> str:
    """Return the kind of a value, for messages."""
    names = {list: "a list", dict: "an object", bool: "true or false", bytes: "bytes"}
    names |= {int: "a number", float: "a number", str: "text", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def holds_half_pair(value: object) -> bool:
    """Return whether a text, or a text in a list, has half of a surrogate pair, which is no
    text."""
    if isinstance(value, str):
        # Most texts are ASCII, and isascii() is fast.
        return not value.isascii() and _HALF_PAIR.search(value) is not None
    if isinstance(value, list):
        return any(map(holds_half_pair, value))
    if isinstance(value, dict):
        return any(map(holds_half_pair, value)) or any(map(holds_half_pair, value.values()))
    return False


def malformed(path: Path, place: str, problem: str) -> HarnessError:
    """Return the error for a file that violates its format."""
    return HarnessError(
        f"{path}: {place}: {problem}.",
        "JSONL has one object per line, JSON a list of objects, CSV a header and rows with as many "
        "cells; all in UTF-8, unless you name an encoding: --encoding NAME",
    )


def require_distinct(path: Path, names: list[str]) -> None:
    """Check that all columns have different names.

    Raises:
        HarnessError: two columns have the same name.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise malformed(path, "the header", f"has a column twice: {', '.join(twice)}")
