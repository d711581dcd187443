"""The folder that keeps what was made of data: texts, token ids, and outputs of models.

All of it is as confidential as the data, so nothing is kept unless ``$HARNESS_CACHE`` names a
folder, and only the user can read what is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from harness.errors import HarnessError

VARIABLE = "HARNESS_CACHE"
"""Environment variable that names the folder."""


def cache_folder(kind: str) -> Path | None:
    """Return the folder of one kind of content, or None if no folder is named.

    Args:
        kind: name of the folder within the cache.
    """
    root = os.environ.get(VARIABLE)
    return Path(root).expanduser() / kind if root else None


@contextmanager
def made_once(place: Path) -> Iterator[Path | None]:
    """Give a folder to fill, which becomes ``place`` whole; None if ``place`` is there already.

    Of several processes that need the same at once, one makes it and the others wait.

    Raises:
        HarnessError: the folder cannot be written.
    """
    work = place.with_name(f".{place.name}.part")
    lock = place.with_name(f".{place.name}.lock")
    try:
        _private_folder(place.parent)
        with FileLock(lock, mode=0o600, thread_local=False):
            try:
                if place.exists():
                    yield None
                    return
                shutil.rmtree(work, ignore_errors=True)  # Left by a process that was killed.
                work.mkdir(mode=0o700)
                yield work
                work.rename(place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
                lock.unlink(missing_ok=True)  # filelock notices, and takes a new one.
    except OSError as error:
        raise unusable(place, error) from error


def create_private(path: Path) -> BinaryIO:
    """Create a file that only the user can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def unusable(place: Path, error: Exception) -> HarnessError:
    """Return the error for a part of the cache that cannot be read or written."""
    return HarnessError(
        f"The cache {place} cannot be used: {error}.",
        f"Remove it, or name another place: export {VARIABLE}=FOLDER",
    )


def _private_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
