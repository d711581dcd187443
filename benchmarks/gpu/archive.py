"""Packs all results of a card into one small file."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

MOST = 15 * 2**20
"""Maximum size of the archive in bytes: under 16 MiB."""
TAIL = 256 * 2**10
"""Maximum bytes of a log; its end is kept."""


def write_archive(folder: Path, out: Path, most: int = MOST) -> Path:
    """Write the files of a folder to an archive, atomically.

    The smallest files come first; a file that would make the archive too large is left out. Only
    the end of a log is stored.

    Args:
        folder: the results of one card.
        out: the folder of the archive; it is created if it does not exist.
        most: maximum size of the archive in bytes.

    Returns:
        The path of the archive.
    """
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"gpu-{folder.name}.tar.gz"
    temporary = out / f".{archive.name}.{os.getpid()}.tmp"
    # Hidden files are those that a step is writing.
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    contents = {path: _content(path) for path in files}
    left = most
    with tarfile.open(temporary, "w:gz") as file:
        for path, content in sorted(contents.items(), key=lambda pair: len(pair[1])):
            # Sizes are counted without compression: the archive is never larger.
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
