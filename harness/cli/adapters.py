"""The option ``--adapter NAME=DIR``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.errors import HarnessError


def read_adapters(words: Iterable[str]) -> dict[str, Path]:
    """Return the folder of each adapter by its name.

    Args:
        words: NAME=DIR of each adapter.

    Raises:
        HarnessError: a word has another form, or a name occurs twice.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not name or not folder:
            raise HarnessError(f"--adapter {word!r} cannot be read.", "Write --adapter NAME=FOLDER")
        if name in folders:
            raise HarnessError(f"There are two adapters {name!r}.", "Give each its own name.")
        folders[name] = Path(folder)
    return folders
