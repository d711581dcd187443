"""The packages that this distribution installs beside ``harness``, found there and nowhere else.

``tasks`` and ``compressors`` are names that other projects use too: every project with invoke or
Celery has a ``tasks.py``. Python searches the current folder before the installed packages, so
such a file would be imported in place of the harness's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from harness.errors import HarnessError

_NAMES = frozenset({"compressors", "tasks"})
_ROOT = Path(__file__).resolve().parents[2]


class _BesideHarness(MetaPathFinder):
    """Finds the two packages beside ``harness``, whatever ``sys.path`` says."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the package's own place, or nothing for all other modules."""
        return PathFinder.find_spec(fullname, [str(_ROOT)]) if fullname in _NAMES else None


@contextmanager
def own_packages_first() -> Iterator[None]:
    """Import ``tasks`` and ``compressors`` from beside ``harness`` inside the context."""
    finder = _BesideHarness()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def check_own(module: ModuleType) -> None:
    """Check that a module is the harness's own and not another one of the same name.

    Raises:
        HarnessError: it lies elsewhere; the message names its file.
    """
    file = Path(module.__file__ or "").resolve()
    if _ROOT not in file.parents:
        raise HarnessError(
            f"{str(file)!r} hides the harness's own package {module.__name__!r}: it was imported "
            "first.",
            "Rename that file, or import harness before it and in a Python process without it.",
        )


def forget_current_folder() -> None:
    """Take the current folder off the module search path, where ``python -m`` has put it."""
    if not sys.flags.safe_path:
        del sys.path[0]
