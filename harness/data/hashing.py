"""Hashes of files: what tells a state of code or weights from every other."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


def code_hash(plugins: Iterable[object]) -> str:
    """Return a hash of the harness's files and those of all plugins.

    A version or a commit would not do: an editable install keeps its version, and a checkout its
    commit, while somebody edits it.

    Args:
        plugins: modules; what else observes a run cannot change its result.
    """
    names = {p.__name__.partition(".")[0] for p in plugins if isinstance(p, ModuleType)}
    digest = hashlib.sha256()
    for name in sorted(names | {"harness"}):
        module = sys.modules[name]
        folders = [Path(entry) for entry in getattr(module, "__path__", [])]
        parts = [folder_hash(folder) for folder in folders] or [
            file_hash(Path(module.__file__ or ""))
        ]
        digest.update(f"{name}\0{parts}\n".encode())
    return digest.hexdigest()


def folder_hash(folder: Path) -> str:
    """Return a hash of the names and contents of all files of a folder, hidden ones left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden:
            digest.update(f"{name.as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
