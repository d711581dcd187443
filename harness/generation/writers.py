"""Writers: rows appended window by window to a partial output, which becomes the output at the
end."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from harness.generation.cells import as_text, to_json

Row = Mapping[str, Any]


class Writer(ABC):
    """Rows of a partial output.

    Attributes:
        position: end of the output so far: bytes, or parts.
    """

    position: int = 0

    @abstractmethod
    def append(self, rows: Sequence[Row | None]) -> None:
        """Write the rows of a window; they are on disk when this returns.

        Args:
            rows: the rows in order; None is a bad record.
        """

    @abstractmethod
    def rewind(self, position: int) -> None:
        """Remove all that was written after a position."""

    @abstractmethod
    def finish(self, path: Path, columns: Sequence[str]) -> tuple[str, ...]:
        """Write the whole output.

        Args:
            path: a file that does not exist, on the same disk as the partial output.
            columns: names of the columns in order.

        Returns:
            Notes on what the format could not hold.
        """


class _BytesWriter(Writer):
    """Base of writers of text that grows at its end.

    Args:
        partial: the file of the partial output; it need not exist.
    """

    def __init__(self, partial: Path) -> None:
        self._partial = partial

    @abstractmethod
    def encode(self, rows: Sequence[Row | None]) -> str:
        """Return the text of rows."""

    def append(self, rows: Sequence[Row | None]) -> None:
        """Append the text of rows."""
        with self._partial.open("ab") as file:
            file.write(self.pack(self.encode(rows).encode()))
            file.flush()
            os.fsync(file.fileno())
            self.position = file.tell()

    def pack(self, data: bytes) -> bytes:
        """Return the bytes to be written."""
        return data

    def rewind(self, position: int) -> None:
        """Remove the bytes after a position."""
        self._partial.touch()
        os.truncate(self._partial, position)
        self.position = position

    def finish(self, path: Path, columns: Sequence[str]) -> tuple[str, ...]:
        """Give the partial output, which is complete now, a second name.

        It keeps the first one until the output is in place, so that a command that is killed in
        between can resume.
        """
        self._partial.touch()
        try:
            os.link(self._partial, path)
        except OSError:  # Some file systems have no hard links.
            shutil.copyfile(self._partial, path)
        return ()


class JsonLinesWriter(_BytesWriter):
    """An object per line; bad records are left out."""

    def encode(self, rows: Sequence[Row | None]) -> str:
        """Return a line for each good record."""
        return "".join(to_json(row) for row in rows if row is not None)


class TextWriter(_BytesWriter):
    """A prediction per line; bad records are empty lines, so that lines belong together.

    Args:
        partial: the file of the partial output.
        column: the column of predictions.
    """

    def __init__(self, partial: Path, column: str) -> None:
        super().__init__(partial)
        self._column = column

    def encode(self, rows: Sequence[Row | None]) -> str:
        """Return a line for each record; line breaks within predictions become spaces."""
        texts = ["" if row is None else row[self._column] for row in rows]
        return "".join(" ".join(text.replace("\r", "\n").split("\n")) + "\n" for text in texts)


class GzipJsonLinesWriter(JsonLinesWriter):
    """Objects per line, compressed; each window is a member of the file of its own."""

    def pack(self, data: bytes) -> bytes:
        """Return compressed bytes that do not depend on the time."""
        return gzip.compress(data, mtime=0)


class GzipTextWriter(TextWriter):
    """A prediction per line, compressed."""

    def pack(self, data: bytes) -> bytes:
        """Return compressed bytes that do not depend on the time."""
        return gzip.compress(data, mtime=0)


class CellWriter(JsonLinesWriter):
    """A CSV or TSV file; its columns are known at the end, so the partial output is JSON.

    Args:
        partial: the file of the partial output.
        delimiter: character between cells.
        compressed: whether the output is compressed with gzip.
    """

    def __init__(self, partial: Path, delimiter: str, *, compressed: bool = False) -> None:
        super().__init__(partial)
        self._delimiter = delimiter
        self._compressed = compressed

    def finish(self, path: Path, columns: Sequence[str]) -> tuple[str, ...]:
        """Write a header and a row for each record; null is an empty cell."""
        with path.open("wb") as raw:
            file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if self._compressed else raw
            # With the standard's line ends, cells with either kind of line break get quoted.
            lines = csv.writer(_Lines(file), delimiter=self._delimiter, lineterminator="\r\n")
            lines.writerow(columns)
            for row in self._rows():
                lines.writerow([as_text(row.get(name)) for name in columns])
            if file is not raw:
                file.close()
            raw.flush()
            os.fsync(raw.fileno())
        return ()

    def _rows(self) -> Iterator[dict[str, Any]]:
        self._partial.touch()
        with self._partial.open("rb") as lines:
            for line in lines:
                yield json.loads(line)


class _Lines:
    """A file for a CSV writer, whose lines end with a line feed alone."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n").encode() + b"\n")


class StreamWriter(Writer):
    """Lines on the standard output, which cannot be taken back.

    Args:
        encoder: turns rows into text.
        stream: the output; by default the standard output.
    """

    def __init__(self, encoder: _BytesWriter, stream: BinaryIO | None = None) -> None:
        self._encoder = encoder
        self._stream = stream or sys.stdout.buffer

    def append(self, rows: Sequence[Row | None]) -> None:
        """Write and flush."""
        self._stream.write(self._encoder.encode(rows).encode())
        self._stream.flush()

    def rewind(self, position: int) -> None:
        """Do nothing."""

    def finish(self, path: Path, columns: Sequence[str]) -> tuple[str, ...]:
        """Return no notes: the whole output has been written already."""
        return ()
