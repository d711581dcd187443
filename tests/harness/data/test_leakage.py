"""Leakage between splits, against a count of all pairs by their definition."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.leakage import count_leakage, hash_text, hash_texts

WORDS = [f"w{i}" for i in range(3000)]


def test_what_counts_as_equal() -> None:
    splits = [["The lungs are clear."], ["the  lungs\nare clear"], ["The lungs are not clear"]]
    assert count_leakage(*map(hash_texts, splits))["exact"] == 1


def test_pairs_are_counted_across_all_splits_and_never_within_one() -> None:
    splits = [["a b c"] * 3, ["a b c"] * 2, ["a b c", "d e f", "d e f"]]
    assert count_leakage(*map(hash_texts, splits)) == {"exact": 3 * 2 + 3 * 1 + 2 * 1, "near": 0}


TEXTS = st.lists(st.sampled_from("abc"), max_size=3).map(" ".join)


@given(st.lists(st.lists(TEXTS, max_size=6), min_size=3, max_size=3))
def test_the_counts_are_those_of_all_pairs(splits: list[list[str]]) -> None:
    if not any(splits):
        return
    exact = near = 0
    for one, other in itertools.combinations(splits, 2):
        for a, b in itertools.product(one, other):
            hashes = zip(hash_text(a), hash_text(b), strict=True)
            whole, *bands = (x == y for x, y in hashes)
            exact += whole
            near += any(bands) and not whole
    assert count_leakage(*map(hash_texts, splits)) == {"exact": exact, "near": near}
    assert exact == sum(
        a.split() == b.split()
        for one, other in itertools.combinations(splits, 2)
        for a, b in itertools.product(one, other)
    )


def shingles(words: list[str]) -> set[tuple[str, str, str]]:
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.mark.parametrize("changed", [2, 5, 40])
def test_bands_meet_as_often_as_theory_says(changed: int) -> None:
    dice = random.Random(changed)
    pairs, expected = [], []
    for _ in range(1500):
        one = dice.choices(WORDS, k=200)
        other = list(one)
        for place in dice.sample(range(200), changed):
            other[place] = dice.choice(WORDS)
        a, b = shingles(one), shingles(other)
        likeness = len(a & b) / len(a | b)
        expected.append(1 - (1 - likeness**5) ** 2)
        pairs.append([hash_text(" ".join(one)), hash_text(" ".join(other))])
    first, second = np.array(pairs, dtype=np.uint64).transpose(1, 0, 2)
    met = ((first == second)[:, 1:].any(axis=1)).mean()
    variance = float(np.mean(expected) * (1 - np.mean(expected)))
    error = np.sqrt(max(variance, 1e-3) / len(pairs))
    assert abs(met - np.mean(expected)) < 4 * error


@pytest.mark.parametrize("text", ["", "___", "...", "é", "one", "one two"])
def test_short_texts_have_hashes(text: str) -> None:
    assert hash_text(text) == hash_text(text + " ")
    assert count_leakage(hash_texts([text]), hash_texts([text])) == {"exact": 1, "near": 0}


def test_empty_splits() -> None:
    assert count_leakage(hash_texts(["a"]), hash_texts([])) == {"exact": 0, "near": 0}
