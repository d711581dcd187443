"""The mean of a quantity over training seeds, with a standard error from a bootstrap.

The bootstrap resamples both training seeds and test examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.statistics.resampling import Bootstrap, Resampled

if TYPE_CHECKING:
    from harness.api.arrays import FloatArray
    from harness.api.metric import Score


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval, all in the estimate's unit."""

    value: float
    low: float
    high: float


class Error(NamedTuple):
    """The error of an estimate.

    Attributes:
        standard: the standard error, in the estimate's unit.
        freedom: the degrees of freedom of the standard error.
        doubt: the relative standard error of ``standard`` itself, due to the number of draws.
    """

    standard: float
    freedom: float
    doubt: float


@dataclass(frozen=True, eq=False)
class SeedMean:
    """A quantity for each seed, as measured and as resampled.

    Attributes:
        values: measured values, shape (seeds,).
        resampled: values over the drawn examples, shape (seeds, resamples).
        linear: values of the closest linear function over the drawn examples, minus its value over
            all examples, shape (seeds, resamples).
        influence: influence of each example on that function; one array of shape (examples,) for
            each seed.
        weights: weights of the seeds in each resample, shape (seeds, resamples).
        shared: whether all seeds are scored on the same test examples.
    """

    values: FloatArray
    resampled: FloatArray
    linear: FloatArray
    influence: tuple[FloatArray, ...]
    weights: FloatArray
    shared: bool

    @classmethod
    def of(
        cls, scores: Sequence[Score], bootstrap: Bootstrap, shared: bool, blocks: int = 1
    ) -> SeedMean:
        """Resample one score for each seed.

        Args:
            scores: one score for each seed.
            bootstrap: draws the examples and the seeds.
            shared: whether all seeds are scored on the same test examples.
            blocks: number of blocks of resamples.
        """
        drawn = [_resample(scores, bootstrap, shared, block) for block in range(blocks)]
        weights = [bootstrap.seed_weights(len(scores), block) for block in range(blocks)]
        return cls(
            values=np.array([score.value for score in scores]),
            resampled=np.hstack([np.stack([one.values for one in block]) for block in drawn]),
            linear=np.hstack([np.stack([one.linear for one in block]) for block in drawn]),
            influence=tuple(one.influence for one in drawn[0]),
            weights=np.hstack(weights),
            shared=shared,
        )

    def minus(self, other: SeedMean, factor: float = 1) -> SeedMean:
        """Return this quantity minus ``factor`` times another one on the same draws."""
        return replace(
            self,
            values=self.values - factor * other.values,
            resampled=self.resampled - factor * other.resampled,
            linear=self.linear - factor * other.linear,
            influence=tuple(
                a - factor * b for a, b in zip(self.influence, other.influence, strict=True)
            ),
        )

    def interval(self, level: float) -> Interval:
        """Return the mean over seeds with its t interval."""
        value = float(self.values.mean())
        half = self._half_width(level)
        return Interval(value, value - half, value + half)

    def over(self, other: SeedMean, level: float, draws: int) -> Interval | None:
        """Return the ratio of the means over seeds with its interval.

        Args:
            other: the denominator.
            level: the confidence level.
            draws: number of draws that decide whether the denominator is clearly above zero.

        Returns:
            The interval, or None if the denominator is not above zero in every one of the draws,
            since the ratio then has no finite interval.
        """
        centre = float(other.values.mean())
        if centre <= 0 or (other.weights * other.resampled).sum(axis=0)[:draws].min() <= 0:
            return None
        ratio = float(self.values.mean()) / centre
        # To first order the ratio's error is (numerator - ratio * denominator) / denominator.
        half = self.minus(other, factor=ratio)._half_width(level) / centre
        return Interval(ratio, ratio - half, ratio + half)

    def p_value(self, error: Error | None = None) -> float:
        """Return the two-sided p-value of a mean of zero."""
        from scipy.special import stdtr

        value = float(self.values.mean())
        standard, freedom, _ = error or self.error()
        if standard == 0:
            return float(value == 0)
        return float(2 * stdtr(freedom, -abs(value) / standard))

    def is_decided(self, thresholds: Sequence[float], sigmas: float = 4) -> bool:
        """Return whether more draws would leave the p-value on the same side of every threshold.

        Args:
            thresholds: p-values at which a decision changes.
            sigmas: width of the uncertainty in standard errors of the standard error.
        """
        error = self.error()
        spread = sigmas * error.doubt
        if spread >= 1:
            return False
        low, high = (
            self.p_value(error._replace(standard=error.standard * factor))
            for factor in (1 - spread, 1 + spread)
        )
        return not any(low <= threshold <= high for threshold in thresholds)

    def error(self) -> Error:
        """Return the standard error of the mean over seeds.

        The degrees of freedom are Satterthwaite's (1946), for the share of the seeds in the
        variance.
        """
        seeds = self.values.size
        variance, doubt = _variance(self)
        examples = sum(map(len, self.influence[:1] if self.shared else self.influence))
        if seeds == 1 or variance == 0:
            return Error(math.sqrt(variance), examples - 1, doubt / 2)
        among_seeds = float(self.values.var(ddof=1)) / seeds
        # The bootstrap underestimates the variance of few seeds by the share 1 / seeds.
        total = variance + among_seeds / seeds
        among_examples = max(0.0, total - among_seeds)
        freedom = total**2 / (among_seeds**2 / (seeds - 1) + among_examples**2 / (examples - 1))
        return Error(math.sqrt(total), freedom, doubt * variance / total / 2)

    def _half_width(self, level: float) -> float:
        from scipy.special import stdtrit

        standard, freedom, _ = self.error()
        return float(stdtrit(freedom, (1 + level) / 2)) * standard


def _variance(mean: SeedMean) -> tuple[float, float]:
    """Return the bootstrap's variance, and its relative standard error due to the draws.

    The linear function serves as a control variate: its variance is known without drawing, and
    only the variance of the rest is estimated from the draws. For a mean there is no rest.
    """
    draws = (mean.weights * mean.resampled).sum(axis=0)
    linear = (mean.weights * (mean.values[:, None] + mean.linear)).sum(axis=0)
    spread = float(linear.var())
    if spread == 0:
        slope, explained = 0.0, 0.0
    else:
        slope = float(np.mean((draws - draws.mean()) * (linear - linear.mean()))) / spread
        explained = slope**2 * _linear_variance(mean)
    rest = float((draws - slope * linear).var())
    variance = explained + rest
    if variance == 0:
        return 0.0, 0.0
    noise = math.sqrt((4 * explained * rest + 2 * rest**2) / draws.size)
    return variance, noise / variance


def _linear_variance(mean: SeedMean) -> float:
    """Return the linear function's variance over all possible draws."""
    seeds = mean.values.size
    # The covariance of the seeds' weights; a draw picks each seed with probability 1 / seeds.
    of_weights = (np.eye(seeds) / seeds - 1 / seeds**2) / seeds
    products = of_weights + 1 / seeds**2
    if mean.shared:
        effects = np.stack(mean.influence)
        of_effects = effects @ effects.T
    else:
        of_effects = np.diag([float(effect @ effect) for effect in mean.influence])
    return float(mean.values @ of_weights @ mean.values + (of_effects * products).sum())


def _resample(
    scores: Sequence[Score], bootstrap: Bootstrap, shared: bool, block: int
) -> list[Resampled]:
    if shared:
        return bootstrap.resample(scores, 0, block)
    return [bootstrap.resample([score], seed, block)[0] for seed, score in enumerate(scores)]
