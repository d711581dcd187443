"""Search for runs in a folder, at any depth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import HarnessError

MOST_FOLDERS = 100_000
"""Number of folders without a run above which a tree is not searched further."""


def walk(
    results: Path, report: str, on_unreadable: Callable[[HarnessError], None] = lambda _: None
) -> Iterator[Path]:
    """Yield the folders that hold a report, in the order of their names, each once.

    Hidden folders are skipped: they contain unfinished runs and caches. The folder of a run is not
    searched further. Links are followed after the folders beside them, so that a link to a run, or
    a loop of links, yields no run twice.

    Args:
        results: the folder to search; may be a run itself.
        report: name of the file that makes a folder a run.
        on_unreadable: called with an error for each folder that cannot be listed.

    Raises:
        HarnessError: there are too many folders without a run.
    """
    seen: set[tuple[int, int]] = set()
    pending = [results]
    without = 0
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if (folder / report).is_file():
                yield folder
                continue
            inside = _folders(folder)
        except OSError as error:
            on_unreadable(HarnessError(f"{str(folder)!r} cannot be read: {error.strerror}."))
            continue
        without += 1
        if without > MOST_FOLDERS:
            raise HarnessError(
                f"{str(results)!r} has more than {MOST_FOLDERS:,} folders without a run.",
                "Name the folder that holds the runs.",
            )
        pending.extend(reversed(inside))


def _folders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, links last."""
    with os.scandir(folder) as entries:
        folders = [
            (entry.is_symlink(), entry.name)
            for entry in entries
            if not entry.name.startswith(".") and _is_folder(entry)
        ]
    return [folder / name for _, name in sorted(folders)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False
