"""Fixed random numbers for the Python code of a model that is traced by shapes alone.

BART skips a layer if a random number is below its ``layerdrop``. A skeleton has no values to
compare, and its counts must not depend on chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def fixed_draw(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """Return 1 in place of a single uniform random number, and None for any other operator.

    The number may be a scalar, or a vector of one as some adapters of PEFT draw it.

    No probability is above 1, so that no layer is skipped. No random generator is used.
    """
    if func is torch.ops.aten.rand.default and math.prod(args[0]) == 1 and len(args[0]) < 2:
        return torch.ones(args[0])
    return None


class FixedHostDraws(TorchDispatchMode):
    """Returns 1 for every single uniform random number while it is active; see ``fixed_draw``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace single uniform random numbers; call every other operator unchanged."""
        draw = fixed_draw(func, args)
        return func(*args, **(kwargs or {})) if draw is None else draw
