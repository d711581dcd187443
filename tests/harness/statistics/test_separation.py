"""Seeds that a difference takes to show, against simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest

from harness.api.metric import Score
from harness.statistics.separation import separation


def scores(seed_effects: list[float], examples: np.ndarray) -> list[Score]:
    return [Score.mean(list(examples + effect), "m") for effect in seed_effects]


def test_the_number_of_seeds_has_the_power_that_is_promised() -> None:
    """Experiments with that many seeds, whose spread is the one observed, find the difference."""
    from scipy import stats

    examples = np.random.default_rng(0).normal(30, 5, 200)
    first, second = [1.5, -0.6, 0.9, 0.2], [0.0, 0.0, 0.0, 0.0]
    found = separation(scores(first, examples), scores(second, examples))
    assert not found.is_shown
    assert found.seeds
    mean, spread = float(np.mean(first)), float(np.std(first, ddof=1))
    drawn = np.random.default_rng(1).normal(mean, spread, (20_000, found.seeds))
    shown = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
    assert 0.78 < shown.mean() < 0.86


def test_a_difference_below_the_noise_of_the_examples_needs_more_examples() -> None:
    generator = np.random.default_rng(0)
    examples = generator.normal(30, 5, 100)
    noise = generator.normal(0, 2, 100)
    noise += 0.1 - noise.mean()
    first = [Score.mean(list(examples + noise), "m")] * 3
    found = separation(first, scores([0.0, 0.0, 0.0], examples))
    assert found.difference.value == pytest.approx(0.1)
    assert found.seeds is None
    # The usual formula for a paired test: (1.96 + 0.84)^2 variance / difference^2.
    expected = (1.960 + 0.842) ** 2 * noise.var(ddof=1) / 0.1**2
    assert found.examples == pytest.approx(expected, rel=0.1)


def test_a_large_difference_is_shown_and_equal_means_never_are() -> None:
    examples = np.random.default_rng(0).normal(30, 5, 100)
    far = separation(scores([9.0, 9.1, 8.9], examples), scores([0.0, 0.0, 0.0], examples))
    assert far.is_shown
    assert far.seeds == 2
    equal = separation(scores([0.1, -0.1], examples), scores([-0.1, 0.1], examples))
    assert equal.seeds is None or not equal.is_shown


def test_a_factor_asks_for_a_share_of_the_second() -> None:
    examples = np.full(50, 40.0)
    first, second = scores([-2.0, -1.9, -2.1], examples), scores([0.0, 0.0, 0.0], examples)
    assert separation(first, second, factor=0.9).difference.value == pytest.approx(2.0)
    assert separation(first, second, factor=1.0).difference.value == pytest.approx(-2.0)


def test_one_seed_is_not_enough() -> None:
    examples = np.arange(10.0)
    with pytest.raises(ValueError, match="Two or more seeds"):
        separation(scores([0.0], examples), scores([1.0], examples))
