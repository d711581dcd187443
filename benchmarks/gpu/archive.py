"""All results of a card as one file, small enough to be sent anywhere."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

MOST = 15 * 2**20
"""Bytes of the archive at most: under 16 MiB."""
TAIL = 256 * 2**10
"""Bytes of a log at most, its last ones."""


def write_archive(folder: Path, out: Path, most: int = MOST) -> Path:
    """Write a folder's files to an archive, which appears whole or not at all.

    The smallest files come first, and a file with which it would grow too large is left out. Of a
    log only the end goes in.

    Args:
        folder: of one card.
        out: a folder, which is made if it is not there.
        most: bytes.

    Returns:
        The archive's path.
    """
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"gpu-{folder.name}.tar.gz"
    temporary = out / f".{archive.name}.{os.getpid()}.tmp"
    contents = {path: _content(path) for path in folder.iterdir() if path.is_file()}
    left = most
    with tarfile.open(temporary, "w:gz") as file:
        for path, content in sorted(contents.items(), key=lambda pair: len(pair[1])):
            # Counted without compression, so that the archive cannot grow too large.
            if len(content) + 1024 > left:
                continue
            left -= len(content) + 1024
            entry = tarfile.TarInfo(f"{folder.name}/{path.name}")
            entry.size = len(content)
            entry.mtime = int(path.stat().st_mtime)
            file.addfile(entry, io.BytesIO(content))
    temporary.replace(archive)
    return archive


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return content[-TAIL:] if path.suffix == ".log" else content
