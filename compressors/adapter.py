"""The base of the compressors that train few weights and freeze the others."""

from __future__ import annotations

from typing import Any, ClassVar

from compressors.methods import METHODS
from harness import Compressor, Options, Stage


class Adapter(Compressor[Any]):
    """A method of ``METHODS``, with the learning rate that is documented there."""

    stage: ClassVar[Stage] = Stage.ADAPTER

    def __init__(self, name: str, options: Options) -> None:
        super().__init__(name, options)
        if name in METHODS:  # Another package may register a class under a name of its own.
            self.learning_rate = METHODS[name].rate


def others(*names: str) -> frozenset[str]:
    """Return all methods except some: PEFT's layers of different kinds cannot be nested."""
    return frozenset(METHODS) - set(names)
