"""Confidence intervals and comparisons: pure, seeded functions of scores that check their input.

All intervals are two-sided. Bootstraps draw test examples with replacement and recompute the
corpus value from the sums of the drawn examples' sufficient statistics, so that they are valid for
BLEU as well as for a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.api.metric import Score
from harness.statistics.resampling import RESAMPLES, Bootstrap, check, check_level, resample
from harness.statistics.seed_mean import Interval, SeedMean

_THRESHOLDS = [0.05 / tests for tests in range(1, 21)]
"""P-values at which significance at 0.05 changes, after Holm's correction for up to 20 tests."""
_BLOCKS = (1, 5, 25)
"""Numbers of blocks of resamples: the next one is used while a p-value may lie on either side of a
threshold."""


@dataclass(frozen=True)
class Comparison:
    """A recipe against its baseline on the same seeds and test examples.

    Attributes:
        difference: recipe minus baseline, in the metric's unit.
        retention: recipe over baseline, or baseline over recipe if lower is better. 1 means equal,
            and less than 1 is worse. It is ``None`` if the denominator is not above zero in every
            resample, since the ratio then has no finite interval.
        retention_above_floor: the recipe's distance from the lead baseline over the baseline's
            distance from it. It is ``None`` without a lead baseline, or if the baseline is not
            clearly better than the lead baseline.
        p_value: two-sided p-value of no difference, not corrected for several recipes (``holm``).
        seeds: number of training seeds; with one, the intervals cover the sampling of test
            examples only.
    """

    difference: Interval
    retention: Interval | None
    retention_above_floor: Interval | None
    p_value: float
    seeds: int


def bootstrap_interval(
    score: Score, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return a corpus value with its percentile bootstrap interval over test examples.

    Args:
        score: a score of at least two examples.
        level: the confidence level, between 0 and 1.
        resamples: number of resamples; 1000 or more for a level of 0.95.
        seed: seeds the draws; equal seeds give equal intervals.

    Raises:
        ValueError: fewer than two examples, a level outside (0, 1), or values that are not finite.
    """
    check([score], level, resamples)
    draws = resample(score, resamples, np.random.default_rng(seed))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(score.value, float(low), float(high))


def mean_interval(
    scores: Sequence[Score],
    *,
    shared_examples: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Interval:
    """Return the mean over training seeds with its interval over seeds and test examples.

    The bootstrap is that of ``compare``.

    Args:
        scores: one score for each training seed.
        shared_examples: whether all seeds are scored on the same test examples.
        level: the confidence level, between 0 and 1.
        resamples: number of resamples.
        seed: seeds the draws.
        bootstrap: draws that several calls share; they replace ``resamples`` and ``seed``.

    Raises:
        ValueError: signatures differ, or there is too little data for an interval.
    """
    bootstrap = bootstrap or Bootstrap(resamples, seed)
    _check([scores], shared_examples, level, bootstrap.resamples)
    return SeedMean.of(scores, bootstrap, shared_examples).interval(level)


def compare(
    recipe: Sequence[Score],
    baseline: Sequence[Score],
    lead_baseline: Score | None = None,
    *,
    shared_examples: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Compare two recipes with a paired bootstrap on two levels, seeds and test examples.

    A resample draws training seeds and, the same for all of them, test examples. Both recipes get
    the same draws, and a recipe's value is the mean over its drawn seeds. The intervals are t
    intervals on the bootstrap's standard error, with Satterthwaite's degrees of freedom for the
    share of the seeds in it. Percentiles of a few seeds cannot reach beyond the best and the worst
    of them, and would cover far less than they claim.

    Args:
        recipe: one score for each training seed.
        baseline: the baseline's scores, seeds in the same order.
        lead_baseline: the score of the lead baseline (Lead-N), which needs no training.
        shared_examples: whether all seeds are scored on the same test examples. If not, test
            examples are drawn separately for each seed, and the recipes are still paired within a
            seed. The intervals are then too wide rather than too narrow: the examples' share in the
            spread of seeds counts twice.
        level: the confidence level, between 0 and 1.
        resamples: number of resamples. 5 and then 25 times as many are drawn if the p-value is so
            close to 0.05, or to 0.05 after Holm's correction, that other draws might decide
            differently.
        seed: seeds the draws.
        bootstrap: draws that several calls share; they replace ``resamples`` and ``seed``.

    Raises:
        ValueError: numbers of seeds or examples differ, signatures differ (the values were not
            computed in the same way), or there is too little data for an interval.
    """
    if (seeds := len(recipe)) != len(baseline):
        raise ValueError(f"Different numbers of seeds: {seeds} and {len(baseline)} seeds.")
    if lead_baseline and not shared_examples:
        raise ValueError(
            "A lead baseline needs one set of test examples, but those of the seeds differ."
        )
    bootstrap = bootstrap or Bootstrap(resamples, seed)
    systems = [recipe, baseline, *([[lead_baseline] * seeds] if lead_baseline else [])]
    _check(systems, shared_examples, level, bootstrap.resamples)
    higher = recipe[0].higher_is_better
    for blocks in _BLOCKS:
        means = [SeedMean.of(scores, bootstrap, shared_examples, blocks) for scores in systems]
        difference = means[0].minus(means[1])
        if difference.is_decided(_THRESHOLDS):
            break
    return Comparison(
        difference=difference.interval(level),
        retention=_share(means[:2], higher, level, bootstrap.resamples),
        retention_above_floor=_share_above_lead_baseline(means, higher, level, bootstrap.resamples),
        p_value=difference.p_value(),
        seeds=seeds,
    )


def _share(
    means: Sequence[SeedMean], higher_is_better: bool, level: float, draws: int
) -> Interval | None:
    """Return recipe over baseline, or baseline over recipe if lower is better."""
    recipe, baseline = means
    if higher_is_better:
        return recipe.over(baseline, level, draws)
    return baseline.over(recipe, level, draws)


def _share_above_lead_baseline(
    means: Sequence[SeedMean], higher_is_better: bool, level: float, draws: int
) -> Interval | None:
    """Return the share above the lead baseline, or None without a lead baseline."""
    if len(means) < 3:
        return None
    recipe, baseline, lead = means
    if higher_is_better:
        return recipe.minus(lead).over(baseline.minus(lead), level, draws)
    return lead.minus(recipe).over(lead.minus(baseline), level, draws)


def _check(
    systems: Sequence[Sequence[Score]], shared_examples: bool, level: float, resamples: int
) -> None:
    """Check that systems can be compared; paired scores must have equal numbers of examples.

    Raises:
        ValueError: see ``check``.
    """
    by_seed = list(zip(*systems, strict=True))
    together = [[score for seed in by_seed for score in seed]] if shared_examples else by_seed
    for scores in together:
        check(scores, level, resamples)
    if signatures := sorted({seed[0].signature for seed in by_seed} - {by_seed[0][0].signature}):
        raise ValueError(f"Different metrics: {by_seed[0][0].signature!r} and {signatures[0]!r}.")


def geometric_mean_interval(ratios: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the geometric mean of ratios with the t interval of their logarithms.

    Args:
        ratios: at least two positive ratios.
        level: the confidence level, between 0 and 1.

    Raises:
        ValueError: fewer than two ratios, or one that is not a positive finite number.
    """
    from scipy.special import stdtrit

    if len(ratios) < 2:
        raise ValueError(f"An interval needs at least two ratios; got {len(ratios)}.")
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ValueError(f"Ratios must be positive and finite: {list(ratios)}.")
    check_level(level)
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    centre = float(logs.mean())
    quantile = float(stdtrit(len(ratios) - 1, (1 + level) / 2))
    half = quantile * float(logs.std(ddof=1)) / math.sqrt(len(ratios))
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))
