"""Places of data sets that are not part of the package: an option, or ``$HARNESS_DATA``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.data.kinds import DATA_SUFFIXES
from harness.errors import HarnessError

DATA_VARIABLE = "HARNESS_DATA"
"""Environment variable: the folder that holds the user's copies of all data sets."""


def data_folder() -> Path | None:
    """Return the folder that ``$HARNESS_DATA`` names, or None if it is not set."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser() if value else None


def find_file(folder: Path, stems: Sequence[str]) -> Path | None:
    """Return the data file whose name begins with one of the stems, ignoring case.

    Raises:
        HarnessError: several files have such a name.
    """
    if not folder.is_dir():
        return None
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().startswith(tuple(stems))
        and path.name.endswith(DATA_SUFFIXES)
        and path.is_file()
    )
    if len(files) > 1:
        raise HarnessError(
            f"{folder}: more than one file could be the data: {', '.join(p.name for p in files)}.",
            f"Name one: --set task_options.path={files[0]}",
        )
    return files[0] if files else None
