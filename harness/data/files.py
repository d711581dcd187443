"""Reading of data files into columns, with errors that name the file and the row.

``datasets.load_dataset`` is not used for two reasons. Even with ``keep_in_memory`` it writes the
whole text as an Arrow file into its cache, where a copy of confidential text would remain. It also
guesses types, so a note that looks like a date would not be text.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from harness.data.dialect import Dialect, find_delimiter, open_text
from harness.data.kinds import ARROW_SUFFIXES, DATA_SUFFIXES, LINE_PAIRS, READ, SHEET_SUFFIXES
from harness.data.table import Table, holds_half_pair, kind_of, malformed, require_distinct
from harness.errors import HarnessError

# The csv module's default limit of 128 KiB per cell is too small for long documents.
_LARGEST_CELL = 2**30
_UTF8 = Dialect()

PIECE_ROWS = 5_000
"""Rows of a file that are read at once."""

Columns = dict[str, list[object]]


def read_table(path: Path, dialect: Dialect = _UTF8) -> Table:
    """Read a data file of any supported format.

    Args:
        path: the file; for a pair of text files, the file of the sources.
        dialect: encoding, delimiter and sheet of the file.

    Raises:
        HarnessError: the file is missing, unreadable or malformed, or has no rows.
    """
    return Table.joined(path, read_pieces(path, dialect))


def read_pieces(path: Path, dialect: Dialect = _UTF8) -> Iterator[Table]:
    """Yield the rows of a data file, some thousand at a time; see ``read_table``.

    Workbooks and JSON lists are read whole. A column that no row of a piece has may be missing
    there.
    """
    if not path.is_file():
        raise HarnessError(f"There is no file {str(path)!r}.", "Check the path.")
    first_row = 1
    try:
        for columns, notes in _pieces(path, dialect):
            table = Table(path, columns, notes, first_row)
            if len(table):
                yield table
            first_row += len(table)
    # zlib.error and EOFError: a damaged or truncated gzip file.
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path}: cannot be read: {error}", "Check the file.") from error
    if first_row == 1:
        raise HarnessError(f"{path}: the file has no rows.", "Give a file with rows.")


def _pieces(path: Path, dialect: Dialect) -> Iterator[tuple[Columns, tuple[str, ...]]]:
    if path.name.endswith(ARROW_SUFFIXES):
        from harness.data.arrow import read_arrow

        yield from ((columns, ()) for columns in read_arrow(path, PIECE_ROWS))
    elif path.name.endswith(SHEET_SUFFIXES):
        from harness.data.workbook import read_workbook

        yield read_workbook(path, dialect.sheet)
    elif path.suffix in LINE_PAIRS:
        other = path.with_suffix(LINE_PAIRS[path.suffix])
        yield from ((piece.columns, ()) for piece in read_pair(path, other, dialect))
    elif path.name.endswith(DATA_SUFFIXES):
        yield from _text_pieces(path, dialect)
    else:
        raise HarnessError(
            f"{path}: this format of data file is not supported.", f"Supported formats: {READ}."
        )


def read_lines(path: Path, dialect: Dialect = _UTF8) -> list[str]:
    """Read a text file with one text per line; only a line feed ends a line.

    Raises:
        HarnessError: the file is missing, unreadable, or in another encoding.
    """
    return [*_lines(path, dialect)]


def _lines(path: Path, dialect: Dialect) -> Iterator[str]:
    try:
        with open_text(path, dialect, newline="\n") as lines:
            for line in lines:
                yield line.removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(f"{path}: cannot be read: {error}", "Check the file.") from error


def read_pair(sources: Path, targets: Path, dialect: Dialect = _UTF8) -> Iterator[Table]:
    """Yield the rows of two text files whose lines with equal numbers belong together.

    Raises:
        HarnessError: one file is missing, or they have different numbers of lines.
    """
    if not targets.is_file():
        raise HarnessError(
            f"{sources}: the file of its targets, {targets.name}, is not in the same folder.",
            f"Write the target of each line to {targets}",
        )
    sides = _lines(sources, dialect), _lines(targets, dialect)
    rows = 0
    while True:
        columns: Columns = {
            name: [*islice(lines, PIECE_ROWS)]
            for name, lines in zip(("source", "target"), sides, strict=True)
        }
        counts = [len(lines) for lines in columns.values()]
        if counts[0] != counts[1]:
            counts = [
                rows + count + sum(1 for _ in lines)
                for count, lines in zip(counts, sides, strict=True)
            ]
            raise HarnessError(
                f"{sources} has {counts[0]:,} lines, and {targets.name} has {counts[1]:,}.",
                "Each line of one file must belong to the line with the same number in the other.",
            )
        if not counts[0]:
            return
        yield Table(sources, columns, (), rows + 1)
        rows += counts[0]


def _text_pieces(path: Path, dialect: Dialect) -> Iterator[tuple[Columns, tuple[str, ...]]]:
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        delimiter, note = find_delimiter(path, dialect)
        notes = (note,) if note else ()
        yield from ((columns, notes) for columns in _read_cells(path, dialect, delimiter))
        return
    # Only a line feed ends a line of a .json file, since it may hold a list.
    newline = "" if name.endswith(".jsonl") else "\n"
    with open_text(path, dialect, newline) as file:
        if name.endswith(".json") and _begins_list(file):
            rows = _parse(path, file.read(), "the list")
            assert isinstance(rows, list)
            yield _columns(path, rows, 1), ()
            return
        yield from ((columns, ()) for columns in _read_json_lines(path, file))


def _begins_list(file: TextIO) -> bool:
    """Return whether a text begins with a bracket, and go back to its start."""
    while (character := file.read(1)).isspace():
        pass
    file.seek(0)
    return character == "["


def _read_cells(path: Path, dialect: Dialect, delimiter: str) -> Iterator[Columns]:
    """Yield the columns of a CSV file, some rows at a time.

    A tab-separated file whose quotation marks are text is read without quoting.
    """
    csv.field_size_limit(_LARGEST_CELL)
    quoting = csv.QUOTE_MINIMAL
    if delimiter == "\t":
        quoting = _tab_quoting(path, dialect)
    # newline="": the csv module handles line breaks within quoted cells.
    with open_text(path, dialect) as lines:
        yield from _read_csv(path, lines, delimiter, quoting)


def _tab_quoting(path: Path, dialect: Dialect) -> int:
    """Return the quoting with which the whole of a tab-separated file can be read."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        with open_text(path, dialect) as lines:
            try:
                for _ in _read_csv(path, lines, "\t", quoting):
                    pass
            except HarnessError:
                continue
        return quoting
    return csv.QUOTE_MINIMAL  # Its error is the one to report.


def _read_csv(path: Path, lines: Iterable[str], delimiter: str, quoting: int) -> Iterator[Columns]:
    reader = csv.reader(lines, strict=True, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    try:
        header = next(reader, [])
        require_distinct(path, header)
        rows: list[list[str]] = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                problem = f"{len(cells)} cells under a header of {len(header)}"
                raise malformed(path, f"line {reader.line_num}", problem)
            rows.append(cells)
            if len(rows) == PIECE_ROWS:
                yield _by_column(header, rows)
                rows = []
        yield _by_column(header, rows)
    except csv.Error as error:
        raise malformed(path, f"line {reader.line_num}", str(error)) from error


def _by_column(header: list[str], rows: list[list[str]]) -> Columns:
    return {name: [cells[number] for cells in rows] for number, name in enumerate(header)}


def _read_json_lines(path: Path, lines: Iterable[str]) -> Iterator[Columns]:
    rows: list[object] = []
    first_row = 1
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        rows.append(_parse(path, line, f"line {number}"))
        # Rows without any column would not be counted.
        if len(rows) >= PIECE_ROWS and any(rows):
            yield _columns(path, rows, first_row)
            first_row += len(rows)
            rows = []
    yield _columns(path, rows, first_row)


def _parse(path: Path, text: str, place: str) -> object:
    try:
        return json.loads(text)
    # Besides syntax errors (ValueError): nesting or numbers that Python cannot parse.
    except (ValueError, RecursionError) as error:
        raise malformed(path, place, f"not JSON: {error}") from error


def _columns(path: Path, rows: list[object], first_row: int) -> Columns:
    columns: Columns = {}
    for index, row in enumerate(rows):
        place = f"row {first_row + index}"
        if not isinstance(row, dict):
            raise malformed(path, place, f"{kind_of(row)} instead of an object")
        # JSON can contain half of a surrogate pair, which is not text in any encoding.
        if holds_half_pair(row):
            raise malformed(path, place, "half of a surrogate pair")
        for name, value in row.items():
            # setdefault would build a new list for every row.
            if name not in columns:
                columns[name] = [None] * len(rows)
            columns[name][index] = value
    return columns
