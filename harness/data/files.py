"""Reading of data files into columns, with errors that name the file and the row.

``datasets.load_dataset`` is not used for two reasons. Even with ``keep_in_memory`` it writes the
whole text as an Arrow file into its cache, where a copy of confidential text would remain. It also
guesses types, so a note that looks like a date would not be text.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from harness.data.dialect import Dialect, find_delimiter, open_text
from harness.data.kinds import ARROW_SUFFIXES, DATA_SUFFIXES, LINE_PAIRS, READ, SHEET_SUFFIXES
from harness.data.table import Table, holds_half_pair, kind_of, malformed, require_distinct
from harness.errors import HarnessError

# The csv module's default limit of 128 KiB per cell is too small for long documents.
_LARGEST_CELL = 2**30
_UTF8 = Dialect()

Columns = dict[str, list[object]]


def read_table(path: Path, dialect: Dialect = _UTF8) -> Table:
    """Read a data file of any supported format.

    Args:
        path: the file; for a pair of text files, the file of the sources.
        dialect: encoding, delimiter and sheet of the file.

    Raises:
        HarnessError: the file is missing, unreadable or malformed, or has no rows.
    """
    if not path.is_file():
        raise HarnessError(f"There is no file {str(path)!r}.", "Check the path.")
    notes: tuple[str, ...] = ()
    try:
        if path.name.endswith(ARROW_SUFFIXES):
            from harness.data.arrow import read_arrow

            columns = read_arrow(path)
        elif path.name.endswith(SHEET_SUFFIXES):
            from harness.data.workbook import read_workbook

            columns, notes = read_workbook(path, dialect.sheet)
        elif path.suffix in LINE_PAIRS:
            columns = _read_pair(path, dialect)
        elif path.name.endswith(DATA_SUFFIXES):
            columns, notes = _read_text(path, dialect)
        else:
            raise HarnessError(
                f"{path}: this format of data file is not supported.", f"Supported formats: {READ}."
            )
    # zlib.error and EOFError: a damaged or truncated gzip file.
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path}: cannot be read: {error}", "Check the file.") from error
    table = Table(path, columns, notes)
    if not len(table):
        raise HarnessError(f"{path}: the file has no rows.", "Give a file with rows.")
    return table


def read_lines(path: Path, dialect: Dialect = _UTF8) -> list[str]:
    """Read a text file with one text per line; only a line feed ends a line.

    Raises:
        HarnessError: the file is missing, unreadable, or in another encoding.
    """
    try:
        with open_text(path, dialect, newline="\n") as lines:
            return [line.removesuffix("\n").removesuffix("\r") for line in lines]
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path}: cannot be read: {error}", "Check the file.") from error


def _read_pair(path: Path, dialect: Dialect) -> Columns:
    other = path.with_suffix(LINE_PAIRS[path.suffix])
    return read_pair(path, other, dialect)


def read_pair(sources: Path, targets: Path, dialect: Dialect = _UTF8) -> Columns:
    """Read two text files whose lines with equal numbers belong together.

    Raises:
        HarnessError: one file is missing, or they have different numbers of lines.
    """
    if not targets.is_file():
        raise HarnessError(
            f"{sources}: the file of its targets, {targets.name}, is not in the same folder.",
            f"Write the target of each line to {targets}",
        )
    columns = {"source": read_lines(sources, dialect), "target": read_lines(targets, dialect)}
    counts = [len(lines) for lines in columns.values()]
    if counts[0] != counts[1]:
        raise HarnessError(
            f"{sources} has {counts[0]:,} lines, and {targets.name} has {counts[1]:,}.",
            "Each line of one file must belong to the line with the same number in the other.",
        )
    return {name: [*lines] for name, lines in columns.items()}


def _read_text(path: Path, dialect: Dialect) -> tuple[Columns, tuple[str, ...]]:
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        delimiter, note = find_delimiter(path, dialect)
        return _read_cells(path, dialect, delimiter), (note,) if note else ()
    with open_text(path, dialect) as file:
        if name.endswith(".jsonl"):
            return _read_json_lines(path, file), ()
        return _read_json(path, file.read()), ()


def _read_cells(path: Path, dialect: Dialect, delimiter: str) -> Columns:
    """Read a CSV file; a tab-separated file whose quotation marks are text is read without
    quoting."""
    csv.field_size_limit(_LARGEST_CELL)
    # newline="": the csv module handles line breaks within quoted cells.
    with open_text(path, dialect) as lines:
        try:
            return _read_csv(path, lines, delimiter, csv.QUOTE_MINIMAL)
        except HarnessError:
            if delimiter != "\t":
                raise
            with open_text(path, dialect) as again:
                try:
                    return _read_csv(path, again, delimiter, csv.QUOTE_NONE)
                except HarnessError:
                    pass
            raise


def _read_csv(path: Path, lines: Iterable[str], delimiter: str, quoting: int) -> Columns:
    reader = csv.reader(lines, strict=True, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    try:
        header = next(reader, [])
        require_distinct(path, header)
        columns: Columns = {name: [] for name in header}
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                problem = f"{len(cells)} cells under a header of {len(header)}"
                raise malformed(path, f"line {reader.line_num}", problem)
            for values, cell in zip(columns.values(), cells, strict=True):
                values.append(cell)
    except csv.Error as error:
        raise malformed(path, f"line {reader.line_num}", str(error)) from error
    return columns


def _read_json_lines(path: Path, lines: Iterable[str]) -> Columns:
    rows = [
        _parse(path, line, f"line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return _columns(path, rows)


def _read_json(path: Path, text: str) -> Columns:
    """Read a list of objects, or JSON lines, which often have this suffix too."""
    if not text.lstrip().startswith("["):
        return _read_json_lines(path, text.split("\n"))
    rows = _parse(path, text, "the list")
    assert isinstance(rows, list)
    return _columns(path, rows)


def _parse(path: Path, text: str, place: str) -> object:
    try:
        return json.loads(text)
    # Besides syntax errors (ValueError): nesting or numbers that Python cannot parse.
    except (ValueError, RecursionError) as error:
        raise malformed(path, place, f"not JSON: {error}") from error


def _columns(path: Path, rows: list[object]) -> Columns:
    columns: Columns = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise malformed(path, f"row {index + 1}", f"{kind_of(row)} instead of an object")
        # JSON can contain half of a surrogate pair, which is not text in any encoding.
        if holds_half_pair(row):
            raise malformed(path, f"row {index + 1}", "half of a surrogate pair")
        for name, value in row.items():
            # setdefault would build a new list for every row.
            if name not in columns:
                columns[name] = [None] * len(rows)
            columns[name][index] = value
    return columns
