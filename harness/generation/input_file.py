"""The bytes of an input: a file, a compressed file or the standard input, read once from its
start."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from harness.data.dialect import HEAD_BYTES, Dialect, encoding_of, likely_delimiter
from harness.errors import HarnessError
from harness.generation.formats import STANDARD


class InputFile:
    """An input of text, opened without reading it.

    Args:
        name: the path, or ``-`` for the standard input.
        dialect: encoding and delimiter.

    Attributes:
        name: a name for messages.
        path: the path.
        encoding: encoding of the text.

    Raises:
        HarnessError: there is no such file, or it cannot be read.
    """

    def __init__(self, name: str, dialect: Dialect) -> None:
        self.name = "standard input" if name == STANDARD else name
        self.path = Path(self.name)
        self._dialect = dialect
        self._bytes: int | None = None
        with readable(self.name):
            self._raw = self._open(name)
            self._head = self._raw.peek(HEAD_BYTES)
            self.encoding = encoding_of(self.path, self._head, dialect)

    def _open(self, name: str) -> io.BufferedReader:
        if name == STANDARD:
            source = cast(BinaryIO, sys.stdin.buffer)
            packed = False
        else:
            source = Path(name).open("rb", buffering=0)  # noqa: SIM115
            status = os.fstat(source.fileno())
            if stat.S_ISREG(status.st_mode):
                self._bytes = status.st_size
            packed = name.endswith(".gz")
        self._source = source
        raw = cast(io.RawIOBase, gzip.GzipFile(fileobj=source) if packed else source)
        return io.BufferedReader(raw, HEAD_BYTES)

    def first_byte(self) -> bytes:
        """Return the first byte that is not white space, of the start of the file."""
        return self._head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]

    def head(self) -> tuple[str, bool]:
        """Return the start of the text, and whether it is the whole text."""
        return self._head.decode(self.encoding, "ignore"), len(self._head) == self._bytes

    def delimiter(self) -> tuple[str, str | None]:
        """Return the delimiter of a CSV file, and a note if it was guessed."""
        if self._dialect.delimiter is not None:
            return self._dialect.delimiter, None
        head, whole = self.head()
        return likely_delimiter(self.path, head, whole=whole)

    def text(self, newline: str) -> Iterator[str]:
        """Yield the lines.

        Args:
            newline: is passed to ``open``. Bytes that are not in the encoding become halves of
                surrogate pairs.
        """
        with readable(self.name):
            # Kept, since it closes the file when it is collected.
            self._text = io.TextIOWrapper(self._raw, self.encoding, "surrogateescape", newline)
            yield from self._text

    def share(self) -> float | None:
        """Return the share of the file's bytes that were read; None if its size is unknown."""
        if not self._bytes:
            return None
        return min(1.0, self._source.tell() / self._bytes)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn errors of reading within the context into errors of the user.

    Args:
        name: name of the input, for messages.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise HarnessError(f"There is no file {name!r}.", "Check the path.") from error
    # zlib.error and EOFError: a damaged or truncated gzip file.
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise HarnessError(f"{name}: cannot be read: {error}", "Check the file.") from error
