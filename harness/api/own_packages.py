"""Import of the packages that this distribution installs beside ``harness``, from there only.

Other projects use the names ``tasks`` and ``compressors`` too: every project with invoke or Celery
has a ``tasks.py``. Python searches the current folder before the installed packages, so such a file
would be imported instead of the harness's own package.
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
    """Finds the two packages beside ``harness``, independent of ``sys.path``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the place of one of the two packages, or None for other modules."""
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
    """Check that a module is the harness's own and not another one with the same name.

    Raises:
        HarnessError: its file is elsewhere; the message names it.
    """
    file = Path(module.__file__ or "").resolve()
    if _ROOT not in file.parents:
        raise HarnessError(
            f"{str(file)!r} hides the harness's own package {module.__name__!r}: it was imported "
            "first.",
            "Rename that file, or import harness before it and in a Python process without it.",
        )


def forget_current_folder() -> None:
    """Remove the current folder, which ``python -m`` adds, from the module search path."""
    if not sys.flags.safe_path:
        del sys.path[0]
