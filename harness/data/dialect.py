"""The dialect of a text file: its encoding, and the delimiter of a CSV file."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from harness.errors import HarnessError

HEAD_BYTES = 1 << 16
"""Size of the piece at the start of a file from which its properties are detected."""
_HEAD_ROWS = 50
_BYTE_ORDER_MARKS = {
    # UTF-32 first, because its byte order mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@dataclass(frozen=True)
class Dialect:
    """Properties of a data file that the file does not state.

    Attributes:
        encoding: encoding of text files, by Python's names; None means UTF-8, or the encoding of
            a byte order mark.
        delimiter: delimiter of CSV files; None means that it is detected.
        sheet: name of the sheet of a workbook; None means the first one.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                # Codecs that do not encode text (hex, rot13) cannot open a file.
                io.TextIOWrapper(io.BytesIO(), encoding=self.encoding)
            except LookupError as error:
                raise HarnessError(
                    f"Unknown encoding {self.encoding!r}.",
                    "Common ones: utf-8, utf-16, latin-1, cp1252, cp1251, gb18030, shift_jis",
                ) from error
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", _one_character(self.delimiter))


def _one_character(delimiter: str) -> str:
    spelled = _SPELLED.get(delimiter.lower(), delimiter)
    if len(spelled) != 1 or spelled in '"\r\n':
        raise HarnessError(
            f"The delimiter {delimiter!r} is not a single character that can separate cells.",
            "Write one character, such as ';', or tab, comma, semicolon or pipe.",
        )
    return spelled


@contextmanager
def open_text(path: Path, dialect: Dialect, newline: str = "") -> Iterator[TextIO]:
    """Open a text file, plain or compressed with gzip.

    Args:
        path: the file.
        dialect: may name the encoding.
        newline: is passed to ``open``.

    Raises:
        HarnessError: the text is not in the encoding; the message names the likely one.
    """
    with _open_bytes(path) as head_file:
        encoding = encoding_of(path, head_file.read(HEAD_BYTES), dialect)
    with _open_bytes(path) as raw, io.TextIOWrapper(raw, encoding, newline=newline) as text:
        try:
            yield text
        except UnicodeError as error:
            reason = str(error)
            # The position of the byte within a piece of the file does not help the user.
            if isinstance(error, UnicodeDecodeError):
                reason = f"byte 0x{error.object[error.start]:02x}, {error.reason}"
            if dialect.encoding is None:
                raise _undecodable(path, _around(path, encoding), reason) from error
            raise HarnessError(
                f"{path}: the text is not in the encoding {dialect.encoding}: {reason}.",
                likely_encoding_hint(_around(path, encoding))
                + " Name another one: --encoding NAME",
            ) from error


def encoding_of(path: Path, head: bytes, dialect: Dialect) -> str:
    """Return the encoding of a text file.

    Args:
        path: the file, for messages.
        head: the first bytes of the file.
        dialect: may name the encoding.

    Raises:
        HarnessError: the file has zero bytes, which UTF-8 text has not.
    """
    encoding = dialect.encoding or _marked(head) or "utf-8-sig"
    if dialect.encoding is None and encoding == "utf-8-sig" and b"\0" in head:
        raise _undecodable(path, head, "it holds zero bytes")
    return encoding


def _open_bytes(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _marked(head: bytes) -> str | None:
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def _around(path: Path, encoding: str) -> bytes:
    """Return the first piece of a file that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with _open_bytes(path) as file:
        while piece := file.read(HEAD_BYTES):
            try:
                decoder.decode(piece)
            except UnicodeError:
                return piece
    return b""


def _undecodable(path: Path, sample: bytes, reason: str) -> HarnessError:
    return HarnessError(
        f"{path}: the text is not UTF-8: {reason}.",
        likely_encoding_hint(sample)
        + " Name the encoding: --encoding NAME, or write the file in UTF-8.",
    )


def likely_encodings(sample: bytes) -> list[str]:
    """Return the possible encodings of bytes, the likeliest first; empty if none fits.

    Zero bytes at every other place mean UTF-16 of Latin letters. charset-normalizer detects the
    other encodings.
    """
    if marked := _marked(sample):
        return [marked]
    if sample.count(0) > len(sample) // 8:
        little = sample[1::2].count(0) >= sample[::2].count(0)
        return ["utf-16-le" if little else "utf-16-be"]
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample))
    best = [
        match.encoding
        for match in matches
        if match.chaos <= matches[0].chaos + 0.02 and match.coherence >= matches[0].coherence - 0.1
    ]
    # A few lines of text cannot distinguish the code pages of European languages. Among nearly
    # equal ones the most common comes first: Windows-1252, which contains Latin-1's letters.
    return sorted(best, key=lambda name: name != "cp1252")[:2]


def likely_encoding_hint(sample: bytes) -> str:
    """Write the likely encoding of bytes, and the option that sets it."""
    guesses = likely_encodings(sample)
    if not guesses:
        return "Its encoding could not be detected."
    plain = " (Latin-1 of Windows)" if guesses[0] == "cp1252" else ""
    more = f", or else {guesses[1]}" if len(guesses) > 1 else ""
    return f"Its encoding is likely {guesses[0]}{plain}: --encoding {guesses[0]}{more}."


def find_delimiter(path: Path, dialect: Dialect) -> tuple[str, str | None]:
    """Return the delimiter of a CSV file, and a note if it was guessed.

    The delimiter is the first of comma, tab, semicolon and bar with which the first rows have as
    many cells as the header, at least two. Unlike ``csv.Sniffer``, this never chooses a letter or
    a space that occurs often, and it prefers commas.

    Args:
        path: the file.
        dialect: may name the delimiter.
    """
    if dialect.delimiter is not None:
        return dialect.delimiter, None
    with open_text(path, dialect) as text:
        return likely_delimiter(path, text.read(HEAD_BYTES), whole=not text.read(1))


def likely_delimiter(path: Path, head: str, *, whole: bool) -> tuple[str, str | None]:
    """Return the delimiter that fits the first rows of a CSV file, and a note if it was guessed.

    Args:
        path: the file; its name tells the usual delimiter.
        head: the start of the file.
        whole: whether that is the whole file.
    """
    usual = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    candidates = [usual, *(d for d in _DELIMITERS if d != usual)]
    for delimiter in candidates:
        if _fits(head, delimiter, whole):
            if delimiter == usual:
                return usual, None
            name = _DELIMITERS[delimiter]
            written = "tab" if delimiter == "\t" else f"'{delimiter}'"
            return delimiter, (
                f"{path.name}: read with {name} between cells, which fits its first rows; set "
                "another "
                f"delimiter with --delimiter (here {written})"
            )
    return usual, None


def _fits(head: str, delimiter: str, whole: bool) -> bool:
    """Return whether the first rows have as many cells as the header, at least two."""
    lines: Iterable[str] = io.StringIO(head, newline="")
    widths: list[int] = []
    try:
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        widths.extend(len(cells) for cells in islice(rows, _HEAD_ROWS) if cells)
    except csv.Error:
        pass  # An open quotation mark, perhaps only because the sample ends there.
    if not whole and len(widths) > 2 and len(widths) < _HEAD_ROWS:
        widths.pop()  # The sample may end within a row.
    return bool(widths) and widths[0] > 1 and set(widths) == {widths[0]}
