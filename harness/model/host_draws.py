"""Random numbers that a model's Python code decides by, while only its shapes are computed.

BART skips a layer if a random number is below its ``layerdrop``. A skeleton has no numbers to
compare, and what is counted on it must not depend on chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def settled_draw(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """Return 1 in place of a single uniform random number, and None for any other operator.

    No probability is above 1, so that nothing is skipped; no generator is used.
    """
    if func is torch.ops.aten.rand.default and not args[0]:
        return torch.ones(())
    return None


class FixedHostDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, a single uniform random number is 1; see ``settled_draw``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run every other operator as it is."""
        settled = settled_draw(func, args)
        return func(*args, **(kwargs or {})) if settled is None else settled
