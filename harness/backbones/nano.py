"""The embedded backbone: small enough to live in the package, pre-trained for real."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import ClassVar

from harness.backbones.t5 import T5


class NanoT5(T5):
    """nano-t5: 12+12 thin T5 layers; see ``nano_t5/README.md`` for how it was made."""

    preset: ClassVar[str] = "quick"

    @property
    def _source(self) -> str:
        with as_file(files("harness.backbones") / "nano_t5") as folder:
            return str(folder)
