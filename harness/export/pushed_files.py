"""Files of a folder that may be pushed: of known kinds, and inside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.export import rebuild_base
from harness.export.manifest import Manifest

KINDS = (".safetensors", ".json", ".md", ".txt", ".model", ".jinja")
"""Endings of files of weights, settings, tokenizers and model cards."""

_CTRANSLATE2 = "model.bin"


def list_files(folder: Path, manifest: Manifest | None) -> dict[str, Path]:
    """Return the files of a folder: path in the repository -> file.

    Args:
        folder: the folder.
        manifest: its manifest, if there is one.

    Raises:
        HarnessError: it holds a file of another kind, a link that leaves it, or nothing at all.
    """
    files: dict[str, Path] = {}
    refused: list[str] = []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if reason := _refusal(folder, path, manifest):
            refused.append(f"{name} ({reason})")
        else:
            files[name] = path
    if refused:
        shown = refused[:8] + ([f"and {len(refused) - 8} more"] if len(refused) > 8 else [])
        raise HarnessError(
            f"{str(folder)!r} holds what is not pushed: {', '.join(shown)}.",
            f"Remove it. Pushed are: {', '.join(f'*{kind}' for kind in KINDS)}",
        )
    if not files:
        raise HarnessError(
            f"The folder {str(folder)!r} is empty.", "Write one: harness export RUN --out FOLDER"
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files in order, and links to folders, which are not followed."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in sorted(names + links))


def _refusal(folder: Path, path: Path, manifest: Manifest | None) -> str | None:
    """Return the reason why a file is not pushed; None if it is."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return "a link that leaves the folder"
    if path.is_dir():
        return "a link to a folder"
    if not path.is_file():
        return "not a file"
    parts = path.relative_to(folder).parts
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if path.suffix in KINDS or _is_known(path, manifest):
        return None
    return f"*{path.suffix} is not a file of a model" if path.suffix else "no kind"


def _is_known(path: Path, manifest: Manifest | None) -> bool:
    """Return whether a file of another kind is one that the export of this form writes."""
    if manifest is None:
        return False
    if manifest.form == "ctranslate2" and path.name == _CTRANSLATE2:
        return True
    script = Path(rebuild_base.__file__)
    return path.name == script.name and path.read_bytes() == script.read_bytes()
