"""Intervals and comparisons: pure functions of scores, seeded, loud about misuse.

All intervals are two-sided. Bootstraps draw test examples with replacement and recompute the
corpus value from the sums of the drawn examples' sufficient statistics, so that they hold for
BLEU as they do for a mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.metric import Score
from harness.resampling import check, check_level, resample, resample_systems, seed_weights

if TYPE_CHECKING:
    from harness.metric import FloatArray


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval, all in the estimate's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A recipe against its baseline on the same seeds and test examples.

    Attributes:
        difference: recipe less baseline, in the metric's unit.
        retention: recipe over baseline, 1 means equal; ``None`` where the baseline is not above
            zero in every resample, since the ratio then has no finite interval.
        retention_above_floor: the same after the floor is taken from both, for the same reason
            ``None`` where the baseline is not clearly above the floor, or where there is no floor.
        p_value: two-sided, of no difference; not yet corrected for several recipes (``holm``).
        seeds: training seeds; with one, the intervals cover the sampling of test examples only.
    """

    difference: Interval
    retention: Interval | None
    retention_above_floor: Interval | None
    p_value: float
    seeds: int


def bootstrap_interval(
    score: Score, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
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
    draws = resample([score], resamples, np.random.default_rng(seed))[0]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(score.value, float(low), float(high))


def mean_interval(
    scores: Sequence[Score],
    *,
    shared_examples: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean over training seeds with its interval over seeds and test examples.

    The bootstrap is that of ``compare``.

    Args:
        scores: one for each training seed.
        shared_examples: whether all seeds are scored on the same test examples.
        level: confidence, between 0 and 1.
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: unlike signatures, or too little data for an interval.
    """
    rng = np.random.default_rng(seed)
    (resampled,) = resample_systems([scores], shared_examples, level, resamples, rng)
    weights = seed_weights(len(scores), resamples, rng)
    count = _count(scores, shared_examples)
    return _Estimate(_values(scores), resampled, weights, count).interval(level)


def compare(
    recipe: Sequence[Score],
    baseline: Sequence[Score],
    floor: Score | None = None,
    *,
    shared_examples: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
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
        resamples: how many.
        seed: of the draws.

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
    systems = [recipe, baseline, *([[floor] * seeds] if floor else [])]
    rng = np.random.default_rng(seed)
    resampled = resample_systems(systems, shared_examples, level, resamples, rng)
    weights = seed_weights(seeds, resamples, rng)

    def estimate(scores: Sequence[Score], resampled: FloatArray) -> _Estimate:
        return _Estimate(_values(scores), resampled, weights, _count(scores, shared_examples))

    ours = estimate(recipe, resampled[0])
    full = estimate(baseline, resampled[1])
    difference = ours.minus(full)
    above_floor = None
    if floor:
        ground = estimate([floor] * seeds, resampled[2])
        above_floor = ours.minus(ground).over(full.minus(ground), level)
    return Comparison(
        difference=difference.interval(level),
        retention=ours.over(full, level),
        retention_above_floor=above_floor,
        p_value=difference.p_value(),
        seeds=seeds,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for the number of tests (Holm 1979), controlling the family-wise error.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values.values()):
        raise ValueError(f"p-values lie between 0 and 1: {dict(p_values)}.")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


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


@dataclass(frozen=True)
class _Estimate:
    """A quantity for each seed, as measured and as resampled.

    Attributes:
        values: of shape (seeds,).
        resampled: the same over drawn examples, of shape (seeds, resamples).
        weights: of the seeds in each resample, of shape (seeds, resamples).
        examples: how many stand behind all seeds.
    """

    values: FloatArray
    resampled: FloatArray
    weights: FloatArray
    examples: int

    def minus(self, other: _Estimate, factor: float = 1) -> _Estimate:
        return replace(
            self,
            values=self.values - factor * other.values,
            resampled=self.resampled - factor * other.resampled,
        )

    def draws(self) -> FloatArray:
        """Return the mean over drawn seeds, of shape (resamples,)."""
        drawn: FloatArray = (self.weights * self.resampled).sum(axis=0)
        return drawn

    def interval(self, level: float) -> Interval:
        value = float(self.values.mean())
        half = self._half_width(level)
        return Interval(value, value - half, value + half)

    def over(self, other: _Estimate, level: float) -> Interval | None:
        """Interval of the ratio of the means over seeds; ``None`` if it has no finite one."""
        centre = float(other.values.mean())
        if centre <= 0 or other.draws().min() <= 0:
            return None
        ratio = float(self.values.mean()) / centre
        # To first order the ratio errs by (numerator - ratio * denominator) / denominator.
        half = self.minus(other, factor=ratio)._half_width(level) / centre
        return Interval(ratio, ratio - half, ratio + half)

    def p_value(self) -> float:
        """Two-sided, of a value of zero."""
        from scipy.special import stdtr

        value = float(self.values.mean())
        error, freedom = self._error()
        if error == 0:
            return float(value == 0)
        return float(2 * stdtr(freedom, -abs(value) / error))

    def _half_width(self, level: float) -> float:
        from scipy.special import stdtrit

        error, freedom = self._error()
        return float(stdtrit(freedom, (1 + level) / 2)) * error

    def _error(self) -> tuple[float, float]:
        """Return the standard error of the mean over seeds, and its degrees of freedom."""
        seeds = self.values.size
        total = float(self.draws().var())
        if seeds == 1 or total == 0:
            return math.sqrt(total), self.examples - 1
        among_seeds = float(self.values.var(ddof=1)) / seeds
        # Drawing from so few seeds, the bootstrap finds their variance too small by 1 / seeds.
        total += among_seeds / seeds
        among_examples = max(0.0, total - among_seeds)
        freedom = total**2 / (
            among_seeds**2 / (seeds - 1) + among_examples**2 / (self.examples - 1)
        )
        return math.sqrt(total), freedom


def _values(scores: Sequence[Score]) -> FloatArray:
    return np.array([score.value for score in scores])


def _count(scores: Sequence[Score], shared_examples: bool) -> int:
    """Return how many test examples stand behind the scores of all seeds."""
    sizes = [len(score.statistics) for score in scores]
    return sizes[0] if shared_examples else sum(sizes)
