"""Readers: the records of an input one after the other, in constant memory."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from harness.data.table import holds_half_pair, kind_of, require_distinct
from harness.errors import HarnessError
from harness.generation.input_file import InputFile

TEXT_COLUMN = "source"
"""Column of the texts of an input that has none."""
_LARGEST_CELL = 1 << 24
"""Longest cell of a CSV file in characters; an unclosed quotation mark ends there."""


class BadRecordError(Exception):
    """A record cannot be read; its text is the reason, without the record's own text."""


class Reader(ABC):
    """The records of an input, which can be iterated over once.

    Attributes:
        columns: the names of all columns, if they are known before the first record.
        notes: sentences on guesses, with the option that overrides them.
    """

    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def items(self) -> Iterator[tuple[int, Any]]:
        """Yield (number of the line or row, what is there), from 1 on."""

    @abstractmethod
    def values(self, item: Any) -> dict[str, Any]:
        """Return the columns of an item.

        Raises:
            BadRecordError: it is not a record.
        """

    @abstractmethod
    def content(self, item: Any) -> bytes:
        """Return the bytes of an item, for a hash."""

    @abstractmethod
    def share(self) -> float | None:
        """Return the share of the input that was read, from 0 to 1; None if it is unknown."""

    def types(self) -> Any:
        """Return the pyarrow schema of the input; None if it has none."""
        return None


class TextReader(Reader):
    """Base of readers of text files.

    Args:
        file: the open input.
    """

    def __init__(self, file: InputFile) -> None:
        self.file = file

    def share(self) -> float | None:
        """Return the share of the bytes that were read."""
        return self.file.share()

    def require_text(self, text: str) -> None:
        """Raise an error if bytes are not in the encoding of the file."""
        # The decoder leaves half of a surrogate pair in the place of such bytes.
        if holds_half_pair(text):
            raise BadRecordError(f"the text is not in the encoding {self.file.encoding}")


class LineReader(TextReader):
    """A text per line; only a line feed ends a line."""

    columns: tuple[str, ...] | None = (TEXT_COLUMN,)

    def items(self) -> Iterator[tuple[int, str]]:
        """Yield the lines without their ends."""
        for number, line in enumerate(self.file.text("\n"), start=1):
            yield number, line.removesuffix("\n").removesuffix("\r")

    def values(self, item: str) -> dict[str, Any]:
        """Return the text as a column."""
        self.require_text(item)
        return {TEXT_COLUMN: item}

    def content(self, item: str) -> bytes:
        """Return the line."""
        return item.encode("utf-8", "surrogatepass") + b"\n"


class JsonLineReader(LineReader):
    """An object per line; blank lines are no records."""

    columns = None

    def items(self) -> Iterator[tuple[int, str]]:
        """Yield the lines that are not blank."""
        for number, line in super().items():
            if number == 1 and line.lstrip().startswith("["):
                name = self.file.name
                raise HarnessError(
                    f"{name}: a list of objects cannot be read piece by piece.",
                    "Write one object per line, for example: jq -c '.[]' IN.json > OUT.jsonl",
                )
            if line.strip():
                yield number, line

    def values(self, item: str) -> dict[str, Any]:
        """Parse a line."""
        self.require_text(item)
        try:
            row = json.loads(item)
        # Besides syntax errors (ValueError): nesting that Python cannot parse.
        except (ValueError, RecursionError) as error:
            place = (
                f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            )
            raise BadRecordError(f"not JSON{place}") from error
        if not isinstance(row, dict):
            raise BadRecordError(f"{kind_of(row)} instead of an object")
        if holds_half_pair(row):
            raise BadRecordError("half of a surrogate pair")
        return row


class CellReader(TextReader):
    """The rows of a CSV or TSV file with a header.

    Args:
        file: the open input.

    Attributes:
        delimiter: character between cells.
    """

    def __init__(self, file: InputFile) -> None:
        super().__init__(file)
        csv.field_size_limit(_LARGEST_CELL)
        self.delimiter, note = file.delimiter()
        self.notes = (note,) if note else ()
        self._rows = csv.reader(
            file.text(""), strict=True, delimiter=self.delimiter, quoting=self._quoting()
        )
        try:
            header = next(self._rows, [])
        except csv.Error as error:
            raise HarnessError(
                f"{file.name}: the header cannot be read: {error}.",
                "Give a file whose first line has the names of the columns.",
            ) from error
        require_distinct(file.path, header)
        self.columns = tuple(header)

    def _quoting(self) -> Any:
        """Return the quoting; a tab-separated file may have quotation marks that are text."""
        if self.delimiter == "\t":
            head, whole = self.file.head()
            try:
                lines: Iterable[str] = io.StringIO(head, newline="")
                for _ in csv.reader(lines, strict=True, delimiter="\t"):
                    pass
            except csv.Error as error:
                if whole or "unexpected end of data" not in str(error):
                    return csv.QUOTE_NONE
        return csv.QUOTE_MINIMAL

    def items(self) -> Iterator[tuple[int, list[str] | str]]:
        """Yield the cells of each row, or the reason why it has none."""
        while True:
            try:
                cells = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                # The reader is at the start of a row again.
                yield self._rows.line_num, f"not CSV: {error}"
                continue
            if cells:
                yield self._rows.line_num, cells

    def values(self, item: list[str] | str) -> dict[str, Any]:
        """Return the cells by column."""
        assert self.columns is not None
        if isinstance(item, str):
            raise BadRecordError(item)
        if len(item) != len(self.columns):
            raise BadRecordError(f"{len(item)} cells under a header of {len(self.columns)}")
        for cell in item:
            self.require_text(cell)
        return dict(zip(self.columns, item, strict=True))

    def content(self, item: list[str] | str) -> bytes:
        """Return the cells with a separator that no cell has."""
        text = item if isinstance(item, str) else "\x1f".join(item)
        return text.encode("utf-8", "surrogatepass") + b"\x1e"
