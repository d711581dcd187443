"""Bytes of a model's folder, by kind of file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from harness.export.entry import size_of
from harness.records.record import Record

Kind = Literal["weights", "tokenizer", "settings", "other"]

_NAMES: dict[Kind, str] = {
    "weights": r".*\.safetensors|model\.bin",
    "tokenizer": r"tokenizer.*\.json|(?:special_tokens_map|added_tokens|.*vocab.*)\.json"
    r"|vocab\.txt|merges\.txt|.*\.model|.*\.jinja",
    "settings": r".*\.json",
}
"""Kind -> pattern of the names of its files; the first that matches counts."""


class FileBytes(Record):
    """Bytes of the files of a folder, measured on disk."""

    weights: int
    """Bytes of the files with weights, their headers included."""
    tokenizer: int
    """Bytes of the tokenizer's files."""
    settings: int
    """Bytes of the other JSON files."""
    other: int
    """Bytes of all other files, such as a model card."""

    @property
    def total(self) -> int:
        """Return the bytes of all kinds together."""
        return self.weights + self.tokenizer + self.settings + self.other


def measure(folder: Path) -> FileBytes:
    """Return the bytes of a folder's files, by kind."""
    sizes: dict[Kind, int] = {"weights": 0, "tokenizer": 0, "settings": 0, "other": 0}
    for name, size in size_of(folder).items():
        sizes[_kind(name.rpartition("/")[2])] += size
    return FileBytes(**sizes)


def subtract(all_files: FileBytes, part: FileBytes) -> FileBytes:
    """Return the bytes of a folder without those of a folder in it."""
    return FileBytes(
        **{name: size - getattr(part, name) for name, size in all_files.model_dump().items()}
    )


def _kind(name: str) -> Kind:
    return next((kind for kind, names in _NAMES.items() if re.fullmatch(names, name)), "other")
