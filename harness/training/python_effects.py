"""Python code in a forward pass that changes something outside of its tensors.

A CUDA graph repeats the kernels of a step, and not the Python code that launched them. A module
that counts its calls, or draws from a generator of Python, would do so only when it is recorded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from harness.api.compressor import Compressor

_PLAIN = (bool, int, float, str, type(None))
_COLLECTIONS = (list, tuple, dict, set)


class PythonState:
    """Attributes of a model's modules and its compressors, and Python's generators, at a moment.

    Of a collection only the size is compared, and of other objects only which one it is.

    Args:
        model: the composed model.
        compressors: the compressors that were applied to it.
    """

    def __init__(self, model: nn.Module, compressors: Iterable[Compressor[Any]]) -> None:
        modules = [(f"a module of type {type(m).__name__}", m) for m in model.modules()]
        self._owners: list[tuple[str, object]] = [*modules, *((c.name, c) for c in compressors)]
        self._before = [_attributes(owner) for _, owner in self._owners]
        self._generators = _generators()

    def change(self) -> str | None:
        """Return a sentence on something that has changed since, or None."""
        if self._generators != _generators():
            return "the forward pass draws from a random generator of Python or NumPy"
        for (name, owner), before in zip(self._owners, self._before, strict=True):
            now = _attributes(owner)
            changed = [k for k in now.keys() | before.keys() if now.get(k) != before.get(k)]
            if changed:
                return f"the forward pass of {name} changes its attribute {min(changed)}"
        return None

    def restore(self) -> None:
        """Give attributes that are numbers or texts their earlier values."""
        for (_, owner), before in zip(self._owners, self._before, strict=True):
            for name, (kind, value) in before.items():
                if kind == "value" and vars(owner).get(name) != value:
                    vars(owner)[name] = value


def _attributes(owner: object) -> dict[str, tuple[str, Any]]:
    return {name: _summary(value) for name, value in getattr(owner, "__dict__", {}).items()}


def _summary(value: object) -> tuple[str, Any]:
    if isinstance(value, _PLAIN):
        return "value", value
    return ("size", len(value)) if isinstance(value, _COLLECTIONS) else ("object", id(value))


def _generators() -> tuple[object, bytes, int]:
    # The generator of NumPy is at a position in an array of numbers.
    _, numbers, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(numbers).tobytes(), int(position)
