"""Streaming reader of MIMIC-IV-Note's CSV files."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from harness import Dialect, HarnessError

COLUMNS = (
    *("note_id", "subject_id", "hadm_id", "note_type", "note_seq", "charttime", "storetime"),
    "text",
)
_NEEDED = ("note_id", "subject_id", "text")
_TICK_EVERY = 500
USUAL = Dialect()
"""UTF-8, and commas unless the header says otherwise."""

_LARGEST_CELL = 2**24
"""Largest cell in characters. It is much longer than any note, and it bounds the memory that an
unclosed quotation mark can use."""


class Note(NamedTuple):
    """One row."""

    id: str
    subject: str
    text: str


def read_notes(
    path: Path,
    left_out: Counter[str],
    on_progress: Callable[[int, float], None],
    dialect: Dialect = USUAL,
) -> Iterator[Note]:
    """Yield the notes of a CSV file, plain or gzipped, holding one at a time.

    Args:
        path: the file.
        left_out: receives the number of unusable rows by reason.
        on_progress: is called regularly with the rows read and the share of the file's bytes.
        dialect: may name the encoding, otherwise UTF-8, and the delimiter, otherwise the one with
            which the header has the needed columns.

    Raises:
        HarnessError: the file is missing, cannot be read to its end, or lacks a needed column.
    """
    try:
        size = max(1, path.stat().st_size)
        with path.open("rb") as raw:
            # Bytes that are no text become lone surrogates, which mark their row.
            lines = io.TextIOWrapper(
                cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.name.endswith(".gz") else raw,
                encoding=dialect.encoding or "utf-8-sig",
                errors="surrogateescape",
                newline="",
            )
            csv.field_size_limit(_LARGEST_CELL)
            header = lines.readline(_LARGEST_CELL)
            delimiter = dialect.delimiter or _delimiter_of(header)
            rows = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
            places = _places(path, rows)
            on_progress(0, 0.0)
            for number, cells in enumerate(_rows(rows, left_out), start=1):
                if number % _TICK_EVERY == 0:
                    on_progress(number, raw.tell() / size)
                if (note := _note(cells, places, left_out, dialect)) is not None:
                    yield note
    except UnicodeDecodeError as error:
        raise HarnessError(
            f"{path}: the text is not in the encoding {dialect.encoding}: {error.reason}.",
            "Name another one: --encoding NAME",
        ) from error
    # EOFError and zlib.error: a truncated or damaged gzip file.
    except (OSError, EOFError, zlib.error) as error:
        raise HarnessError(
            f"{path} cannot be read to its end: {error}.",
            "Check the path; if the file is there, download it again and compare its checksum "
            "with the SHA256SUMS.txt beside it.",
        ) from error


def _delimiter_of(header: str) -> str:
    """Return the delimiter with which a header has the needed columns; a comma if none has."""
    for delimiter in ",\t;|":
        try:
            names = next(csv.reader([header], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if set(_NEEDED) <= set(names):
            return delimiter
    return ","


def _rows(rows: Iterator[list[str]], left_out: Counter[str]) -> Iterator[list[str]]:
    """Yield rows; a row that cannot be parsed is counted, and reading continues with the next
    line."""
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            left_out["the row is malformed"] += 1
            continue
        if cells:
            yield cells


def _places(path: Path, rows: Iterator[list[str]]) -> tuple[int, list[int]]:
    """Return the number of columns and the places of the needed ones."""
    try:
        header = next(rows, [])
    except csv.Error:
        header = []
    if missing := [name for name in _NEEDED if name not in header]:
        raise HarnessError(
            f"{path}: the header lacks the column {', '.join(missing)}.",
            f"MIMIC-IV-Note's files begin with: {','.join(COLUMNS)}",
        )
    return len(header), [header.index(name) for name in _NEEDED]


def _note(
    cells: list[str], places: tuple[int, list[int]], left_out: Counter[str], dialect: Dialect
) -> Note | None:
    width, indices = places
    if len(cells) != width:
        left_out["the row is malformed"] += 1
        return None
    note = Note(*(cells[index] for index in indices))
    if not note.id or not note.subject:
        left_out["the row names no note or no patient"] += 1
        return None
    if not note.text or note.text.isspace():
        left_out["the note is empty"] += 1
        return None
    if not all(map(_is_text, note)):
        left_out[f"the note is not {dialect.encoding or 'UTF-8'} text"] += 1
        return None
    return note


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
