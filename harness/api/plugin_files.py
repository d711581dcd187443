"""Plugins of a single Python file, which need no package."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

from harness.errors import HarnessError, first_line

FOLDER = "plugins"
"""Folder of copies of plugin files in a run's folder; nothing there is ever executed."""


class PluginFile(BaseModel):
    """A Python file with a plugin, and the text that all processes of a run execute."""

    path: Path
    """Place of the file."""
    sha256: str
    """Hash of its text."""
    text: str
    """Its text."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @classmethod
    def read(cls, path: Path, sha256: str | None = None) -> PluginFile:
        """Read a file.

        Args:
            path: the place of the file.
            sha256: the hash that its text must have.

        Raises:
            HarnessError: there is no such file, it is no Python file, or it has changed.
        """
        path = path.expanduser().resolve()
        if path.suffix != ".py" or not re.fullmatch(r"[A-Za-z_]\w*", path.stem):
            raise HarnessError(
                f"The plugin {str(path)!r} is not a Python file with the name of a module.",
                "Name one file such as my_method.py; a package is installed: pip install FOLDER",
            )
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise HarnessError(
                f"The plugin {str(path)!r} cannot be read: {error}.",
                "Write a file: harness new compressor NAME --file",
            ) from error
        found = hashlib.sha256(text.encode()).hexdigest()
        if sha256 is not None and found != sha256:
            raise HarnessError(
                f"The plugin {str(path)!r} has changed since it was given.",
                "Give the same command again.",
            )
        return cls(path=path, sha256=found, text=text)

    def load(self) -> ModuleType:
        """Execute the text as a module.

        Raises:
            HarnessError: an exception; the message names its line.
        """
        name = f"harness_plugin_{self.path.stem}"
        spec = importlib.util.spec_from_loader(name, _Text(self))
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # Pickles and dataclasses look their module up.
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise HarnessError(
                f"The plugin {str(self.path)!r} cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}{self._line(error)}.",
                "Correct the file. It may import harness and installed packages, and no file "
                "beside it.",
            ) from error
        return module

    def _line(self, error: Exception) -> str:
        if isinstance(error, SyntaxError):
            return ""  # Its message has the line.
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(self.path)]
        return f" (line {own[-1].lineno})" if own else ""


class _Text(SourceLoader):
    """Loads a module from a text that was read before, whatever its file is now."""

    def __init__(self, file: PluginFile) -> None:
        self._file = file

    def get_filename(self, fullname: str) -> str:
        """Return the place of the file, for tracebacks."""
        return str(self._file.path)

    def get_data(self, path: str) -> bytes:
        """Return the text."""
        return self._file.text.encode()
