"""Formats of inputs and outputs, by the suffix of the name or the first byte."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.errors import HarnessError

STANDARD = "-"
"""Name that means the standard input or output."""

Format = Literal["jsonl", "csv", "text", "parquet", "arrow"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".source": "text",
    ".src": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_COMPRESSED = ("jsonl", "csv", "text")
INPUT_FORMATS = ("jsonl", "csv", "text", "parquet", "arrow")
OUTPUT_FORMATS = ("jsonl", "csv", "text", "parquet")


def format_of(name: str, requested: str | None, formats: tuple[str, ...], option: str) -> str:
    """Return the format of a file.

    Args:
        name: the file's name.
        requested: the format that the user chose, or None.
        formats: the formats to choose from.
        option: the option that chooses a format, for messages.

    Raises:
        HarnessError: the suffix is unknown, or there is no such format.
    """
    if requested is not None:
        if requested not in formats:
            raise HarnessError(
                f"{requested!r} is no format of {option}.", f"Formats: {', '.join(formats)}"
            )
        return requested
    plain = name.removesuffix(".gz")
    found = _SUFFIXES.get(Path(plain).suffix)
    if found in formats and (plain == name or found in _COMPRESSED):
        return found
    suffixes = [suffix for suffix, kind in _SUFFIXES.items() if kind in formats]
    raise HarnessError(
        f"{name}: the suffix names no format that is read or written piece by piece.",
        f"Suffixes: {', '.join(suffixes)}, those of text also with .gz; or choose the format: "
        f"{option} NAME",
    )
