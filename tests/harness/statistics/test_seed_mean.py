"""Errors of means over seeds: exact where possible, and decisions that no draw sways."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness import Score
from harness.records.run_folder import read_runs
from harness.reporting.scores import read_scores
from harness.statistics.intervals import compare
from harness.statistics.resampling import Bootstrap
from harness.statistics.seed_mean import SeedMean

Values = NDArray[np.float64]
SWEEP = Path(__file__).parents[3] / "results" / "sweep"


def mean_score(values: Values) -> Score:
    return Score.mean(values.tolist(), "mean")


def ratio_score(numerators: Values, denominators: Values) -> Score:
    return Score(
        (numerators / denominators).tolist(),
        "ratio of sums",
        np.column_stack([numerators, denominators]),
        lambda sums: sums[:, 0] / sums[:, 1],
    )


def test_the_variance_of_a_mean_is_that_of_all_possible_draws() -> None:
    values = np.random.default_rng(0).normal(5, 2, (2, 3))
    # Every draw of two seeds from two, and of three examples from three.
    all_draws = [
        values[list(seeds)][:, list(examples)].mean()
        for seeds in product(range(2), repeat=2)
        for examples in product(range(3), repeat=3)
    ]
    mean = SeedMean.of([mean_score(row) for row in values], Bootstrap(100), shared=True)
    among = values.mean(axis=1).var(ddof=1) / 2
    assert mean.error().standard == pytest.approx(math.sqrt(np.var(all_draws) + among / 2))
    assert mean.error().doubt == pytest.approx(0, abs=1e-9)


def test_with_examples_of_their_own_seeds_are_drawn_apart() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(5, 2, 2), rng.normal(6, 2, 3)
    all_draws = []
    for first_draw in product(first, repeat=2):
        for second_draw in product(second, repeat=3):
            means = np.mean(first_draw), np.mean(second_draw)
            all_draws += [np.mean([means[i] for i in seeds]) for seeds in product((0, 1), repeat=2)]
    scores = [mean_score(first), mean_score(second)]
    mean = SeedMean.of(scores, Bootstrap(100), shared=False)
    among = np.var([first.mean(), second.mean()], ddof=1) / 2
    assert mean.error().standard == pytest.approx(math.sqrt(np.var(all_draws) + among / 2))


@pytest.mark.parametrize("kind", ["ratio", "kinked"])
def test_what_no_line_explains_is_taken_from_the_draws(kind: str) -> None:
    rng = np.random.default_rng(2)
    denominators = rng.integers(1, 40, 60).astype(np.float64)
    score = ratio_score(denominators * rng.uniform(0.1, 0.5, 60), denominators)
    if kind == "kinked":
        values = rng.normal(0, 1, 60)
        score = Score(values.tolist(), "folded", values[:, None], lambda s: np.abs(s[:, 0]))
    error = SeedMean.of([score], Bootstrap(2000, seed=3), shared=True).error()
    many = np.random.default_rng(4).multinomial(60, np.full(60, 1 / 60), size=200_000)
    assert error.standard == pytest.approx(score.aggregate(many @ score.statistics).std(), rel=0.03)
    assert error.doubt < 0.03


def near_the_border(rng: np.random.Generator) -> tuple[list[Score], list[Score]]:
    """Two recipes with a corpus metric that is no mean, whose difference has p near 0.05."""
    lengths = rng.integers(2, 40, (2, 3, 100)).astype(np.float64)
    shares = rng.beta(3, 5, (2, 3, 100))
    shares[0] += 0.0395
    recipe, baseline = ([*map(ratio_score, s * n, n)] for s, n in zip(shares, lengths, strict=True))
    return recipe, baseline


def test_a_decision_near_the_border_does_not_depend_on_the_draws() -> None:
    recipe, baseline = near_the_border(np.random.default_rng(7))
    p_values = [compare(recipe, baseline, seed=seed).p_value for seed in range(6)]
    few = [
        SeedMean.of(recipe, Bootstrap(seed=seed), shared=True)
        .minus(SeedMean.of(baseline, Bootstrap(seed=seed), shared=True))
        .p_value()
        for seed in range(6)
    ]
    assert 0.03 < np.mean(p_values) < 0.07
    assert np.ptp(p_values) < 0.001
    assert np.ptp(few) < 0.006


def test_more_is_drawn_only_where_it_may_decide() -> None:
    recipe, baseline = near_the_border(np.random.default_rng(7))
    difference = SeedMean.of(recipe, Bootstrap(), shared=True).minus(
        SeedMean.of(baseline, Bootstrap(), shared=True)
    )
    p_value = difference.p_value()
    assert not difference.is_decided([p_value * 1.001])
    assert difference.is_decided([p_value * 2, p_value / 2])


def test_stars_of_the_committed_sweep_do_not_depend_on_the_draws() -> None:
    runs = [run for run in read_runs(SWEEP)[0] if run.report.recipe in ("full", "lprun")]
    for name in ("rouge2", "bleu"):
        scores: dict[str, list[Score]] = {"full": [], "lprun": []}
        for run in sorted(runs, key=lambda run: run.report.seed):
            score = read_scores(run.folder, run.report, [name]).scores[name]
            scores[run.report.recipe].append(score)
        p_values = [compare(scores["lprun"], scores["full"], seed=s).p_value for s in range(5)]
        assert len({p < 0.05 for p in p_values}) == 1
        assert np.ptp(p_values) < 0.001
        if name == "rouge2":
            # A mean: the same for all draws, and known from the t distribution.
            assert p_values == pytest.approx([0.048] * 5, abs=0.001)


def test_one_seeds_p_value_is_the_t_tests_with_the_bootstraps_variance() -> None:
    rng = np.random.default_rng(9)
    recipe, baseline = rng.normal(30, 9, 400), rng.normal(30.9, 9, 400)
    comparison = compare([mean_score(recipe)], [mean_score(baseline)])
    t = (recipe - baseline).mean() / ((recipe - baseline).std() / math.sqrt(400))
    assert comparison.p_value == pytest.approx(2 * stats.t(399).sf(abs(t)))
