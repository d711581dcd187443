"""Hashes of files, which identify a version of code or weights."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.data.column_values import column_values

SHOWING = frozenset({"cli", "reporting"})
"""Packages of the harness that only show runs and cannot change a result."""


def code_hash(plugins: Iterable[object], left_out: Collection[str] = SHOWING) -> str:
    """Return a hash of all code that can change a run's result: the harness's and the plugins'.

    The command line and the rendering of reports are left out, so that editing a style sheet does
    not make finished runs different. A version or a commit is not enough, because an editable
    install keeps its version, and a checkout its commit, while files are edited.

    Args:
        plugins: modules of the plugins.
        left_out: folders of the harness that are ignored.
    """
    names = {p.__name__.partition(".")[0] for p in plugins if isinstance(p, ModuleType)}
    digest = hashlib.sha256()
    for name in sorted(names | {"harness"}):
        module = sys.modules[name]
        folders = [Path(entry) for entry in getattr(module, "__path__", [])]
        ignored = left_out if name == "harness" else ()
        parts = [folder_hash(folder, ignored) for folder in folders] or [
            file_hash(Path(module.__file__ or ""))
        ]
        digest.update(f"{name}\0{parts}\n".encode())
    return digest.hexdigest()


def folder_hash(folder: Path, left_out: Collection[str] = ()) -> str:
    """Return a hash of the names and contents of all files of a folder, except hidden ones.

    Args:
        folder: folder that is read to any depth.
        left_out: names of direct subfolders that are ignored.
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
            for text in column_values(split, column):
                digest.update(text.encode() + b"\0")
        if "references" in getattr(split, "column_names", split):
            for texts in column_values(split, "references"):
                digest.update("\0".join(texts).encode() + b"\2")
        digest.update(b"\1")
    return digest.hexdigest()
