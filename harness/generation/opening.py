"""Opening of an input in its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.data.dialect import Dialect
from harness.errors import HarnessError
from harness.generation.formats import INPUT_FORMATS, STANDARD, format_of
from harness.generation.input_file import InputFile
from harness.generation.readers import CellReader, JsonLineReader, LineReader, Reader


def open_reader(name: str, requested: str | None = None, dialect: Dialect | None = None) -> Reader:
    """Open an input.

    Args:
        name: the path, or ``-`` for the standard input.
        requested: the format; by default that of the suffix. The standard input has objects per
            line if its first byte is a brace, and else a text per line.
        dialect: encoding and delimiter.

    Raises:
        HarnessError: the format is unknown, or the file is missing or damaged.
    """
    dialect = dialect or Dialect()
    kind = None
    if name != STANDARD or requested is not None:
        kind = format_of(name, requested, INPUT_FORMATS, "--input-format")
    if kind in ("parquet", "arrow"):
        from harness.generation.columnar_reader import ColumnarReader

        if name == STANDARD:
            raise HarnessError(
                f"The standard input cannot be read as {kind}.", "Give the path of a file."
            )
        return ColumnarReader(Path(name), kind)
    file = InputFile(name, dialect)
    if kind is None:
        kind = "jsonl" if file.first_byte() == b"{" else "text"
    readers: dict[str, Callable[[InputFile], Reader]] = {
        "jsonl": JsonLineReader,
        "csv": CellReader,
        "text": LineReader,
    }
    return readers[kind](file)
