"""Splits: sizes, groups that stay together, and the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness import HarnessError
from harness.data.splits import split_rows


@given(st.integers(3, 500), st.integers(0, 2**32 - 1))
def test_a_plain_shuffle_has_the_papers_sizes(count: int, seed: int) -> None:
    parts = split_rows(count, seed)
    tenth = max(1, round(count / 10))
    assert (len(parts.eval), len(parts.test)) == (tenth, tenth)
    every = np.concatenate([parts.train, parts.eval, parts.test])
    assert sorted(every) == list(range(count))


@given(st.lists(st.integers(0, 30), min_size=20, max_size=300), st.integers(0, 1000))
def test_groups_stay_together(groups: list[int], seed: int) -> None:
    numbers = np.array(groups)
    try:
        parts = split_rows(len(groups), seed, numbers)
    except HarnessError:
        # Two groups of eval and test may be all there are, where some are large.
        sizes = sorted(np.bincount(numbers), reverse=True)
        assert sum(sizes[:2]) + 2 * round(len(groups) / 10) >= len(groups)
        return
    sides = [set(numbers[part]) for part in (parts.train, parts.eval, parts.test)]
    assert sum(map(len, sides)) == len(set(groups))
    largest = np.bincount(numbers).max()
    for part in (parts.eval, parts.test):
        assert round(len(groups) / 10) <= len(part) < round(len(groups) / 10) + largest


def test_the_seed_decides() -> None:
    first, again, other = (split_rows(200, seed) for seed in (0, 0, 1))
    assert (first.test == again.test).all()
    assert set(first.test) != set(other.test)


def test_every_row_is_as_likely_to_be_tested() -> None:
    chosen = np.concatenate([split_rows(20, seed).test for seed in range(3000)])
    # 3000 draws of 2 of 20 rows: mean 300, standard deviation 16.4.
    assert abs(np.bincount(chosen, minlength=20) - 300).max() < 82


@pytest.mark.parametrize("groups", [None, np.array([1, 1, 2, 2])])
def test_too_few_rows_or_patients(groups: NDArray[np.int64] | None) -> None:
    with pytest.raises(HarnessError, match="too few to split"):
        split_rows(2 if groups is None else 4, 0, groups)
