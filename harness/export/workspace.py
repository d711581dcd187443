"""Folders of an export: written under hidden names, and moved into place together at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import HarnessError
from harness.export.manifest import FILE


class Workspace:
    """Folders that appear whole or not at all; a context manager.

    Args:
        out: final path of the export.
        overwrite: replace an earlier export there.

    Attributes:
        out: final path of the export.
        folder: hidden folder beside it, to write to.

    Raises:
        HarnessError: the folder exists, or cannot be written.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self.out = out
        _require_free(out, overwrite)
        self._moves: list[tuple[Path, Path]] = []
        self.folder = self.add(out)

    def add(self, final: Path) -> Path:
        """Return a hidden folder that ``commit`` moves to ``final``."""
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            hidden = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
            hidden.chmod(0o755)
        except OSError as error:
            raise HarnessError(
                f"The folder {str(final)!r} cannot be written: {error.strerror}.",
                "Name another one with --out FOLDER",
            ) from error
        self._moves.append((hidden, final))
        return hidden

    def discard(self, hidden: Path) -> None:
        """Remove a hidden folder that is not needed after all."""
        self._moves = [move for move in self._moves if move[0] != hidden]
        shutil.rmtree(hidden)

    def commit(self) -> None:
        """Move all folders into place; an earlier export is replaced."""
        # The export itself comes last: it refers to the others.
        for hidden, final in reversed(self._moves):
            for path in hidden.rglob("*"):
                # safetensors makes its files readable for their owner alone.
                path.chmod(0o755 if path.is_dir() else 0o644)
            replaced = hidden.with_name(f"{hidden.name}.replaced")
            if final.exists():
                final.rename(replaced)
            hidden.rename(final)
            shutil.rmtree(replaced, ignore_errors=True)
        self._moves.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hidden, _ in self._moves:
            shutil.rmtree(hidden, ignore_errors=True)


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise HarnessError(
            f"{str(out)!r} exists already.", "Name another folder, or replace it: --overwrite"
        )
    # Only an export is replaced: a mistyped path must not delete somebody's files.
    if not out.is_dir() or out.is_symlink() or (any(out.iterdir()) and not (out / FILE).is_file()):
        raise HarnessError(
            f"{str(out)!r} is not an export, so that --overwrite does not replace it.",
            "Name another folder, or remove it yourself.",
        )
