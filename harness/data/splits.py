"""Seeded splits into train, eval and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError

HELD_OUT = 0.1
"""Share of all rows that goes to eval, and again to test."""


@dataclass(frozen=True)
class Parts:
    """Rows of each split: three arrays of row numbers in ascending order."""

    train: NDArray[np.int64]
    eval: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(count: int, seed: int, groups: NDArray[np.integer] | None = None) -> Parts:
    """Shuffle once and split: round(10 %) eval, round(10 %) test, the rest train.

    Args:
        count: number of rows.
        seed: seed of the shuffle.
        groups: a number for each row, such as its patient. Rows of one group stay together, so
            eval and test have a tenth of the rows plus at most one group.

    Raises:
        HarnessError: a split would be empty.
    """
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members, minlength=1)
    # RandomState, unlike newer generators, has the same sequence in all versions of numpy.
    order = np.random.RandomState(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    held_out = max(1, round(count * HELD_OUT))
    evaluation = before < held_out
    start_of_test = sizes[order][evaluation].sum()
    test = ~evaluation & (before < start_of_test + held_out)
    side = np.zeros(len(sizes), dtype=np.int8)
    side[order[evaluation]] = 1
    side[order[test]] = 2
    parts = [np.flatnonzero(side[members] == number) for number in range(3)]
    if not all(len(part) for part in parts):
        raise HarnessError(
            f"{count} rows are too few to split into train, eval and test.",
            "Supply at least 3 rows, from at least 3 patients if rows have patient ids.",
        )
    return Parts(*parts)
