"""Reading a data file into columns, with errors that name the file and the row.

Not by ``datasets.load_dataset``: even with ``keep_in_memory`` it writes the whole text as an Arrow
file into its cache, by default under the home folder, where a copy of confidential text would
stay behind; and it guesses types, so that a note that looks like a date is no longer text.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import HarnessError
from tasks.paths import SUFFIXES

# The csv module's own limit of 128 KiB a cell is less than a long document has.
_LARGEST_CELL = 2**30
_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The rows of a file by column; a value that a row lacks is None."""

    path: Path
    columns: dict[str, list[object]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> Table:
    """Read a JSONL, JSON, CSV or Parquet file; all but Parquet also compressed with gzip.

    Raises:
        HarnessError: the file is missing, unreadable, malformed, or holds no row.
    """
    if not path.is_file():
        raise HarnessError(f"There is no file {str(path)!r}.", "Check the path.")
    if not path.name.endswith(SUFFIXES):
        raise HarnessError(
            f"{path}: not a kind of data file that can be read.",
            f"The name must end in one of: {', '.join(SUFFIXES)}",
        )
    try:
        columns = _read_parquet(path) if path.name.endswith(".parquet") else _read_text(path)
    # zlib.error and EOFError: a damaged or truncated gzip file.
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path}: cannot be read: {error}", "Check the file.") from error
    table = Table(path, columns)
    if not len(table):
        raise HarnessError(f"{path}: there are no rows in it.", "Give a file with rows.")
    return table


def _read_parquet(path: Path) -> dict[str, list[object]]:
    import pyarrow  # comes with datasets
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        columns = [column.to_pylist() for column in table.columns]
    # ValueError: a value that Python has no counterpart of, such as text that is not UTF-8.
    except (pyarrow.ArrowException, ValueError) as error:
        raise _malformed(path, "not a Parquet file that can be read", str(error)) from error
    _require_distinct(path, table.column_names)
    return dict(zip(table.column_names, columns, strict=True))


def _read_text(path: Path) -> dict[str, list[object]]:
    name = path.name.removesuffix(".gz")
    # newline="": a line break within a quoted cell is the csv module's to read.
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if path.name.endswith(".gz")
        else path.open(encoding="utf-8-sig", newline="")
    ) as file:
        try:
            if name.endswith(".csv"):
                return _read_csv(path, file)
            if name.endswith(".jsonl"):
                return _read_json_lines(path, file)
            return _read_json(path, file.read())
        except UnicodeDecodeError as error:
            raise _malformed(path, "not UTF-8 text", str(error)) from error


def _read_csv(path: Path, lines: Iterable[str]) -> dict[str, list[object]]:
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        _require_distinct(path, header)
        columns: dict[str, list[object]] = {name: [] for name in header}
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                problem = f"{len(cells)} cells under a header of {len(header)}"
                raise _malformed(path, f"line {reader.line_num}", problem)
            for values, cell in zip(columns.values(), cells, strict=True):
                values.append(cell)
    except csv.Error as error:
        raise _malformed(path, f"line {reader.line_num}", str(error)) from error
    return columns


def _read_json_lines(path: Path, lines: Iterable[str]) -> dict[str, list[object]]:
    rows = [
        _parse(path, line, f"line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return _columns(path, rows)


def _read_json(path: Path, text: str) -> dict[str, list[object]]:
    """Read a list of objects, or JSON lines, which are often stored under this suffix too."""
    if not text.lstrip().startswith("["):
        return _read_json_lines(path, text.split("\n"))
    rows = _parse(path, text, "the list")
    assert isinstance(rows, list)
    return _columns(path, rows)


def _parse(path: Path, text: str, place: str) -> object:
    try:
        return json.loads(text)
    # Besides syntax errors (a ValueError): nesting or numbers beyond what Python parses.
    except (ValueError, RecursionError) as error:
        raise _malformed(path, place, f"not JSON: {error}") from error


def _columns(path: Path, rows: list[object]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _malformed(path, f"row {index + 1}", f"{_kind(row)} rather than an object")
        for name, value in row.items():
            # JSON can spell half of a surrogate pair, which is no text in any encoding.
            if _HALF_PAIR.search(name) or (isinstance(value, str) and _HALF_PAIR.search(value)):
                raise _malformed(path, f"row {index + 1}", "half of a surrogate pair")
            columns.setdefault(name, [None] * len(rows))[index] = value
    return columns


def text_column(table: Table, name: str) -> list[str | None]:
    """Return a column of texts and missing values.

    Raises:
        HarnessError: a value is not text; it names the row.
    """
    texts: list[str | None] = []
    for number, value in enumerate(table.columns[name], start=1):
        if value is not None and not isinstance(value, str):
            raise HarnessError(
                f"{table.path}: row {number}, column {name!r}: {_kind(value)} rather than text.",
                "Name another column or turn its values into text. "
                f"Columns: {', '.join(table.columns)}",
            )
        texts.append(value)
    return texts


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", bool: "true or false", bytes: "bytes"}
    names |= {int: "a number", float: "a number", str: "text", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _require_distinct(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _malformed(path, "the header", f"names a column twice: {', '.join(twice)}")


def _malformed(path: Path, place: str, problem: str) -> HarnessError:
    return HarnessError(
        f"{path}: {place}: {problem}.",
        "JSONL holds one object a line, JSON a list of objects, CSV a header and rows of as many "
        "cells; all in UTF-8.",
    )
