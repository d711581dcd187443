"""Hashes of files: what tells a state of code or weights from every other."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

_SHOWING = frozenset({"cli", "reporting"})
"""Rooms of the harness that show a run, and cannot change its result."""


def code_hash(plugins: Iterable[object]) -> str:
    """Return a hash of all files that can change a run's result: the harness's and the plugins'.

    The command line and the rendering of reports are left out, so that editing a style sheet
    leaves finished runs as they are. A version or a commit would not do: an editable install keeps
    its version, and a checkout its commit, while somebody edits it.

    Args:
        plugins: modules; what else observes a run cannot change its result.
    """
    names = {p.__name__.partition(".")[0] for p in plugins if isinstance(p, ModuleType)}
    digest = hashlib.sha256()
    for name in sorted(names | {"harness"}):
        module = sys.modules[name]
        folders = [Path(entry) for entry in getattr(module, "__path__", [])]
        left_out = _SHOWING if name == "harness" else frozenset()
        parts = [folder_hash(folder, left_out) for folder in folders] or [
            file_hash(Path(module.__file__ or ""))
        ]
        digest.update(f"{name}\0{parts}\n".encode())
    return digest.hexdigest()


def folder_hash(folder: Path, left_out: Collection[str] = ()) -> str:
    """Return a hash of the names and contents of all files of a folder, hidden ones left out.

    Args:
        folder: is read to any depth.
        left_out: names of its direct subfolders whose files do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and name.parts[0] not in left_out:
            digest.update(f"{name.as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_hash(*splits: Any) -> str:
    """Return a hash of the sources and targets of datasets, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for column in ("source", "target"):
            for text in split[column]:
                digest.update(text.encode() + b"\0")
        if "references" in getattr(split, "column_names", split):
            for texts in split["references"]:
                digest.update("\0".join(texts).encode() + b"\2")
        digest.update(b"\1")
    return digest.hexdigest()
