"""Statistics against closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness import Score
from harness.statistics.holm import holm
from harness.statistics.intervals import (
    bootstrap_interval,
    compare,
    geometric_mean_interval,
    mean_interval,
)

Values = NDArray[np.float64]


def mean_score(values: Values) -> Score:
    return Score.mean(values.tolist(), "mean")


def ratio_score(numerators: Values, denominators: Values) -> Score:
    """A corpus metric that is not the mean of its examples, as BLEU's precisions are."""
    return Score(
        (numerators / denominators).tolist(),
        "ratio of sums",
        np.column_stack([numerators, denominators]),
        lambda sums: sums[:, 0] / sums[:, 1],
    )


# --- One run ---------------------------------------------------------------------------------


def test_interval_of_a_mean_equals_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(30, 8, 2000)
    value, low, high = bootstrap_interval(mean_score(values), resamples=8000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert value == pytest.approx(values.mean())
    assert low == pytest.approx(value - half, abs=0.03 * 2 * half)
    assert high == pytest.approx(value + half, abs=0.03 * 2 * half)


def test_interval_of_a_share_equals_the_binomial_one() -> None:
    values = np.repeat([0.0, 1.0], [70, 30])
    # The bootstrap distribution of a share is exactly binomial.
    _, low, high = bootstrap_interval(mean_score(values), resamples=20_000)
    exact = stats.binom(100, 0.3).ppf([0.025, 0.975]) / 100
    assert [low, high] == pytest.approx(exact, abs=0.011)


def test_interval_recomputes_a_corpus_value() -> None:
    rng = np.random.default_rng(1)
    denominators = rng.integers(1, 60, 500).astype(np.float64)
    numerators = denominators * rng.uniform(0.2, 0.4, 500) + 3
    score = ratio_score(numerators, denominators)
    value, low, high = bootstrap_interval(score, resamples=8000)
    assert value == pytest.approx(numerators.sum() / denominators.sum())
    # The delta method's standard error of a ratio of means.
    residual = numerators - value * denominators
    error = residual.std() / math.sqrt(500) / denominators.mean()
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.04)
    assert not low <= np.mean(score.examples) <= high


def test_coverage_of_the_interval() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(1500):
        score = mean_score(rng.gamma(4.0, 10.0, 120))
        _, low, high = bootstrap_interval(score, resamples=500, seed=trial)
        hits += low <= 40 <= high
    assert 0.93 <= hits / 1500 <= 0.97


def test_same_seed_same_interval_and_level_widens_it() -> None:
    score = mean_score(np.random.default_rng(3).normal(0, 1, 50))
    assert bootstrap_interval(score, seed=5) == bootstrap_interval(score, seed=5)
    assert bootstrap_interval(score, seed=5) != bootstrap_interval(score, seed=6)
    narrow, wide = bootstrap_interval(score, level=0.8), bootstrap_interval(score, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_blocks_of_draws_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    score = mean_score(np.random.default_rng(4).normal(0, 1, 50))
    whole = bootstrap_interval(score)
    monkeypatch.setattr("harness.statistics.resampling._BLOCK", 700)
    assert bootstrap_interval(score) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("score", "options", "complaint"),
    [
        (mean_score(np.array([1.0])), {}, "at least two test examples"),
        (mean_score(np.array([1.0, np.nan])), {}, "not finite"),
        (mean_score(np.array([1.0, 2.0])), {"level": 95}, "between 0 and 1"),
        (mean_score(np.array([1.0, 2.0])), {"resamples": 10}, "too few"),
    ],
)
def test_misuse_of_the_interval_is_an_error(
    score: Score, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        bootstrap_interval(score, **options)


# --- Two recipes -----------------------------------------------------------------------------


def simulated(
    rng: np.random.Generator, seeds: int, examples: int, seed_spread: float
) -> tuple[list[Score], list[Score], Score]:
    """True means of 38 and 40, a lead baseline of 20, examples that differ in difficulty."""
    difficulty = rng.normal(0, 10, examples)
    suits_recipe = rng.normal(0, 6, examples)

    def runs(mean: float, per_example: Values) -> list[Score]:
        return [
            mean_score(mean + per_example + rng.normal(0, 3, examples) + rng.normal(0, seed_spread))
            for _ in range(seeds)
        ]

    floor = mean_score(20 + difficulty / 2 + rng.normal(0, 3, examples))
    return runs(38, difficulty + suits_recipe), runs(40, difficulty), floor


@pytest.mark.parametrize(
    ("seeds", "seed_spread"),
    [(1, 0.0), (5, 1.5), pytest.param(10, 0.8, marks=pytest.mark.slow)],
)
def test_coverage_of_the_comparison(seeds: int, seed_spread: float) -> None:
    rng = np.random.default_rng(6)
    trials = 500
    hits = np.zeros(3)
    for trial in range(trials):
        recipe, baseline, floor = simulated(rng, seeds, 150, seed_spread)
        comparison = compare(recipe, baseline, floor, resamples=400, seed=trial)
        assert comparison.retention is not None
        assert comparison.retention_above_floor is not None
        pairs = (
            (comparison.difference, -2),
            (comparison.retention, 38 / 40),
            (comparison.retention_above_floor, 0.9),
        )
        hits += [interval.low <= truth <= interval.high for interval, truth in pairs]
    assert all(0.93 <= share <= 0.97 for share in hits / trials), hits / trials


def test_seeds_with_test_examples_of_their_own_are_paired_within_the_seed() -> None:
    rng = np.random.default_rng(12)
    trials = 200
    hits = np.zeros(3)
    for trial in range(trials):
        pairs = [simulated(rng, 1, size, 0.8)[:2] for size in (60, 70, 80, 90, 100)]
        recipe, baseline = ([run for (run,) in runs] for runs in zip(*pairs, strict=True))
        comparison = compare(recipe, baseline, shared_examples=False, resamples=400, seed=trial)
        mean = mean_interval(recipe, shared_examples=False, resamples=400, seed=trial)
        assert comparison.retention is not None
        intervals = (comparison.difference, -2), (comparison.retention, 38 / 40), (mean, 38)
        hits += [interval.low <= truth <= interval.high for interval, truth in intervals]
    # Wide on purpose, but not by more than the root of two: 2 * Phi(1.96 * 2 ** 0.5) - 1.
    # The mean, in which the spread among examples is largest, is the widest.
    assert all(0.94 <= share <= 0.998 for share in hits[:2] / trials), hits / trials
    assert hits[2] / trials >= 0.99


@pytest.mark.parametrize("seeds", [1, 5])
def test_coverage_of_the_mean_over_seeds(seeds: int) -> None:
    rng = np.random.default_rng(13)
    hits = 0
    for trial in range(500):
        runs = simulated(rng, seeds, 150, 0.0 if seeds == 1 else 1.5)[0]
        value, low, high = mean_interval(runs, resamples=400, seed=trial)
        assert value == pytest.approx(np.mean([run.value for run in runs]))
        hits += low <= 38 <= high
    assert 0.93 <= hits / 500 <= 0.97


def test_with_one_seed_the_comparison_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(7)
    recipe, baseline = rng.normal(30, 9, 400), rng.normal(30.9, 9, 400)
    comparison = compare([mean_score(recipe)], [mean_score(baseline)], resamples=20_000)
    test = stats.ttest_rel(recipe, baseline)
    expected = test.confidence_interval(0.95)
    width = expected.high - expected.low
    assert comparison.difference.value == pytest.approx((recipe - baseline).mean())
    assert comparison.difference.low == pytest.approx(expected.low, abs=0.02 * width)
    assert comparison.difference.high == pytest.approx(expected.high, abs=0.02 * width)
    assert comparison.p_value == pytest.approx(test.pvalue, abs=0.01)
    assert comparison.seeds == 1


def test_pairing_takes_out_the_difficulty_of_examples() -> None:
    rng = np.random.default_rng(8)
    difficulty = rng.normal(40, 15, 300)
    recipe, baseline = mean_score(difficulty - 1), mean_score(difficulty + rng.normal(0, 1, 300))
    comparison = compare([recipe], [baseline])
    alone = bootstrap_interval(recipe)
    assert comparison.difference.high < 0
    assert comparison.difference.high - comparison.difference.low < 0.1 * (alone.high - alone.low)


def test_rejects_a_true_null_hypothesis_at_the_stated_rate() -> None:
    rng = np.random.default_rng(9)
    rejected = 0
    for trial in range(400):
        runs = [mean_score(rng.normal(30, 5, 80) + rng.normal(0, 1)) for _ in range(10)]
        rejected += compare(runs[:5], runs[5:], resamples=200, seed=trial).p_value < 0.05
    assert rejected / 400 <= 0.07


def test_a_recipe_compared_with_itself_is_equal_to_the_last_digit() -> None:
    runs, _, floor = simulated(np.random.default_rng(10), 3, 50, 1.0)
    comparison = compare(runs, runs, floor)
    assert comparison.difference == (0, 0, 0)
    assert comparison.retention == (1, 1, 1)
    assert comparison.retention_above_floor == (1, 1, 1)
    assert comparison.p_value == 1


def test_no_ratio_is_invented_where_the_baseline_is_not_above_the_lead_baseline() -> None:
    rng = np.random.default_rng(11)
    recipe, baseline = mean_score(rng.normal(30, 5, 50)), mean_score(rng.normal(30, 5, 50))
    comparison = compare([recipe], [baseline], lead_baseline=mean_score(rng.normal(30, 5, 50)))
    assert comparison.retention_above_floor is None
    assert comparison.retention is not None
    assert compare([recipe], [mean_score(np.zeros(50))]).retention is None


def test_misuse_of_the_comparison_is_an_error() -> None:
    one, two = mean_score(np.array([1.0, 2.0, 4.0])), mean_score(np.array([1.0, 2.0]))
    other = Score.mean([1, 2, 3], "another implementation")
    with pytest.raises(ValueError, match="1 and 2 seeds"):
        compare([one], [one, one])
    with pytest.raises(ValueError, match="different numbers of test examples"):
        compare([one], [two])
    with pytest.raises(ValueError, match="Different metrics"):
        compare([one], [other])
    with pytest.raises(ValueError, match="Different metrics"):
        compare([one], [one], lead_baseline=other)
    with pytest.raises(ValueError, match="Different metrics"):
        compare([one, other], [one, other], shared_examples=False)
    with pytest.raises(ValueError, match="A lead baseline needs one set of test examples"):
        compare([one], [one], lead_baseline=one, shared_examples=False)
    with pytest.raises(ValueError, match="different numbers of test examples"):
        mean_interval([one, two])
    with pytest.raises(ValueError, match="no scores"):
        compare([], [])


# --- Many recipes, and speed -----------------------------------------------------------------


def test_holm_on_a_worked_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    raw = {str(index): p for index, p in enumerate(p_values)}
    adjusted = holm(raw)
    for name, p in raw.items():
        assert p <= adjusted[name] <= min(1, len(raw) * p)
    by_raw = sorted(raw, key=lambda name: raw[name])
    assert sorted(adjusted[name] for name in by_raw) == [adjusted[name] for name in by_raw]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_not_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm({"a": p})


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=20), st.floats(0.5, 0.99))
def test_geometric_mean_against_scipy(ratios: list[float], level: float) -> None:
    value, low, high = geometric_mean_interval(ratios, level=level)
    logs = np.log(ratios)
    assert value == pytest.approx(stats.gmean(ratios))
    if logs.std() > 1e-9:
        expected = stats.ttest_1samp(logs, 0).confidence_interval(level)
        assert [low, high] == pytest.approx(np.exp([expected.low, expected.high]))


def test_the_geometric_mean_of_inverse_ratios_is_the_inverse() -> None:
    value, low, high = geometric_mean_interval([1.3, 1.5, 1.45])
    inverse = geometric_mean_interval([1 / 1.3, 1 / 1.5, 1 / 1.45])
    assert inverse == pytest.approx((1 / value, 1 / high, 1 / low))


@pytest.mark.parametrize("ratios", [[], [1.2], [1.0, 0.0], [1.0, -2.0], [1.0, math.inf]])
def test_misuse_of_the_geometric_mean_is_an_error(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match=r"two ratios|positive and finite"):
        geometric_mean_interval(ratios)
