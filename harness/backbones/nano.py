"""The embedded backbone: a small pre-trained model in the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import ClassVar

from harness.backbones.t5 import T5


class NanoT5(T5):
    """nano-t5: 12+12 thin T5 layers; ``nano_t5/README.md`` describes its pre-training."""

    preset: ClassVar[str] = "quick"

    @property
    def _source(self) -> str:
        with as_file(files("harness.backbones") / "nano_t5") as folder:
            return str(folder)

    def published(self) -> None:
        """Return None: the folder belongs to the installed package."""
        return

    def license(self) -> str:
        """Return the license of the package, which the weights come with."""
        return "apache-2.0"
