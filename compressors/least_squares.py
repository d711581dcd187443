"""Least squares of many rows, with a penalty that cross-validation chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties to try, relative to the mean square of the inputs."""


class Fit:
    """A linear map from inputs to targets; rows are added in parts and not kept."""

    def __init__(self, *, intercept: bool) -> None:
        self.intercept = intercept
        self._halves: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Add rows; the first half of them belongs to one fold, the rest to the other.

        Args:
            inputs: shape (rows, inputs), in double precision.
            targets: shape (rows, outputs).
        """
        import torch

        if self.intercept:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
        middle = len(inputs) // 2
        parts = [slice(None, middle), slice(middle, None)]
        sums = [
            (inputs[p].T @ inputs[p], inputs[p].T @ targets[p], targets[p].square().sum())
            for p in parts
        ]
        if not self._halves:
            self._halves = sums
        else:
            self._halves = [
                (a + d, b + e, c + f)
                for (a, b, c), (d, e, f) in zip(self._halves, sums, strict=True)
            ]

    def solve(self) -> Tensor | None:
        """Return the map, shape (inputs, outputs); None if no map is better than none.

        The penalty is the one with the smallest squared error on the half of the rows that the map
        was not fitted to. The map is then fitted to all rows.
        """
        first, second = self._halves
        none = float(first[2] + second[2])
        errors = {
            penalty: _error(_solved(first[:2], penalty), second)
            + _error(_solved(second[:2], penalty), first)
            for penalty in _PENALTIES
        }
        best = min(errors, key=errors.__getitem__)
        if not errors[best] < none:
            return None
        return _solved((first[0] + second[0], first[1] + second[1]), best)


def _solved(sums: tuple[Tensor, Tensor], penalty: float) -> Tensor:
    import torch

    products, targets = sums
    if not products.any():  # All neurons are dead.
        return torch.zeros_like(targets)
    ridge = torch.eye(len(products), dtype=products.dtype, device=products.device)
    solution: Tensor = torch.linalg.solve(
        products + penalty * products.diagonal().mean() * ridge, targets
    )
    return solution


def _error(solution: Tensor, sums: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return the squared error of a map on rows of which only sums are known."""
    products, targets, squares = sums
    error = squares - 2 * (solution * targets).sum() + (solution * (products @ solution)).sum()
    return float(error)
