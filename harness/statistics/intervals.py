"""Intervals and comparisons: pure functions of scores, seeded, loud about misuse.

All intervals are two-sided. Bootstraps draw test examples with replacement and recompute the
corpus value from the sums of the drawn examples' sufficient statistics, so that they hold for
BLEU as they do for a mean.
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
"""P-values that decide on a mark, after Holm's correction for up to 20 tests."""
_BLOCKS = (1, 5, 25)
"""Blocks of resamples: more are drawn while a p-value may lie on either side of a threshold."""


@dataclass(frozen=True)
class Comparison:
    """A recipe against its baseline on the same seeds and test examples.

    Attributes:
        difference: recipe less baseline, in the metric's unit.
        retention: recipe over baseline, or baseline over recipe where less is better: 1 means
            equal, and less is worse; ``None`` where the denominator is not above zero in every
            resample, since the ratio then has no finite interval.
        retention_above_floor: the recipe's distance from the floor over the baseline's, for the
            same reason ``None`` where the baseline is not clearly better than the floor, or where
            there is no floor.
        p_value: two-sided, of no difference; not yet corrected for several recipes (``holm``).
        seeds: training seeds; with one, the intervals cover the sampling of test examples only.
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
        score: of at least two examples.
        level: confidence, between 0 and 1.
        resamples: how many; 1000 or more for a level of 0.95.
        seed: of the draws; equal seeds give equal intervals.

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
        scores: one for each training seed.
        shared_examples: whether all seeds are scored on the same test examples.
        level: confidence, between 0 and 1.
        resamples: how many.
        seed: seeds the draws.
        bootstrap: draws that several calls share, in place of ``resamples`` and ``seed``.

    Raises:
        ValueError: unlike signatures, or too little data for an interval.
    """
    bootstrap = bootstrap or Bootstrap(resamples, seed)
    _check([scores], shared_examples, level, bootstrap.resamples)
    return SeedMean.of(scores, bootstrap, shared_examples).interval(level)


def compare(
    recipe: Sequence[Score],
    baseline: Sequence[Score],
    floor: Score | None = None,
    *,
    shared_examples: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Compare two recipes with a paired bootstrap on two levels, seeds and test examples.

    A resample draws training seeds and, for all of them alike, test examples; both recipes get
    the same draws, and a recipe's value is the mean over its drawn seeds. The intervals are t
    intervals on the bootstrap's standard error, with Satterthwaite's degrees of freedom for the
    share that the seeds have in it: the percentiles of a handful of seeds cannot reach beyond
    the best and the worst of them, and would cover far less than they claim.

    Args:
        recipe: one score for each training seed.
        baseline: the same for the baseline, seeds in the same order.
        floor: the score of a system that needs no training, such as the lead of the source.
        shared_examples: whether all seeds are scored on the same test examples. If not, each
            seed's are drawn apart, the two recipes are paired within a seed all the same, and the
            intervals err to be wide: what examples add to the spread of seeds counts twice.
        level: confidence, between 0 and 1.
        resamples: how many; 5 and then 25 times as many where the p-value lies so near to 0.05, or
            to what Holm's correction makes of it, that other draws might decide otherwise.
        seed: seeds the draws.
        bootstrap: draws that several calls share, in place of ``resamples`` and ``seed``.

    Raises:
        ValueError: unequal numbers of seeds or examples, unlike signatures (the values were not
            computed in the same way), or too little data for an interval.
    """
    if len(recipe) != len(baseline):
        raise ValueError(
            f"Paired comparison of {len(recipe)} and {len(baseline)} seeds: they must be equal."
        )
    if floor and not shared_examples:
        raise ValueError("A floor is one system on one set of test examples: the seeds' differ.")
    seeds = len(recipe)
    bootstrap = bootstrap or Bootstrap(resamples, seed)
    systems = [recipe, baseline, *([[floor] * seeds] if floor else [])]
    _check(systems, shared_examples, level, bootstrap.resamples)
    for blocks in _BLOCKS:
        ours, full = (
            SeedMean.of(scores, bootstrap, shared_examples, blocks) for scores in (recipe, baseline)
        )
        difference = ours.minus(full)
        if difference.is_decided(_THRESHOLDS):
            break
    draws = bootstrap.resamples
    higher = recipe[0].higher_is_better
    above_floor = None
    if floor:
        ground = SeedMean.of([floor] * seeds, bootstrap, shared_examples, blocks)
        gains = [ours.minus(ground), full.minus(ground)]
        if not higher:
            gains = [ground.minus(ours), ground.minus(full)]
        above_floor = gains[0].over(gains[1], level, draws)
    return Comparison(
        difference=difference.interval(level),
        retention=ours.over(full, level, draws) if higher else full.over(ours, level, draws),
        retention_above_floor=above_floor,
        p_value=difference.p_value(),
        seeds=seeds,
    )


def _check(
    systems: Sequence[Sequence[Score]], shared_examples: bool, level: float, resamples: int
) -> None:
    """Refuse systems that cannot be compared; examples are equal in number where they are paired.

    Raises:
        ValueError: see ``check``.
    """
    by_seed = list(zip(*systems, strict=True))
    together = [[score for seed in by_seed for score in seed]] if shared_examples else by_seed
    for scores in together:
        check(scores, level, resamples)
    if signatures := sorted({seed[0].signature for seed in by_seed} - {by_seed[0][0].signature}):
        raise ValueError(f"Unlike metrics: {by_seed[0][0].signature!r} and {signatures[0]!r}.")


def geometric_mean_interval(ratios: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the geometric mean of ratios with the t interval of their logarithms.

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
