"""Number of training seeds that would show a difference between two recipes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.api.metric import Score
from harness.statistics.resampling import Bootstrap
from harness.statistics.seed_mean import Interval, SeedMean

_POWER = 0.8
MOST_SEEDS = 100
"""Largest number of seeds that is considered."""


@dataclass(frozen=True)
class Separation:
    """A difference between two recipes, and what it would take to show it.

    Attributes:
        difference: the mean of the first minus that of the second, with its interval.
        seeds: number of seeds with which a difference of this size would be shown with a
            probability of 80 %; None if no number up to 100 would do.
        examples: number of test examples that would do with unlimited seeds; None if there are
            as many, so that seeds alone would do.
    """

    difference: Interval
    seeds: int | None
    examples: int | None = None

    @property
    def is_shown(self) -> bool:
        """Return whether the interval leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


def separation(
    first: Sequence[Score],
    second: Sequence[Score],
    *,
    factor: float = 1,
    shared_examples: bool = True,
    level: float = 0.95,
    bootstrap: Bootstrap | None = None,
) -> Separation:
    """Estimate how many seeds separate two recipes, paired on seeds and test examples.

    The variance of a difference has a part among seeds, which falls with their number, and a part
    among test examples, which does not.

    Args:
        first: a score for each of two or more seeds.
        second: the other recipe's scores, seeds in the same order.
        factor: the second is multiplied by this; 0.95 asks whether the first keeps 95 % of it.
        shared_examples: whether all seeds are scored on the same test examples.
        level: the confidence level.
        bootstrap: draws that several calls share.

    Raises:
        ValueError: fewer than two seeds, or different numbers of them.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"Two or more seeds of each are needed: {len(first)} and {len(second)}.")
    bootstrap = bootstrap or Bootstrap()
    means = [SeedMean.of(scores, bootstrap, shared_examples) for scores in (first, second)]
    difference = means[0].minus(means[1], factor)
    interval = difference.interval(level)
    if interval.value == 0:
        return Separation(interval, None)
    seeds = len(first)
    of_a_seed = float(difference.values.var(ddof=1))
    of_examples = max(0.0, difference.error().standard ** 2 - of_a_seed / seeds)
    count = len(first[0].examples)

    def is_enough(number: int) -> bool:
        total = of_a_seed / number + of_examples
        return abs(interval.value) >= _multiple(total, of_a_seed, number, count, level)

    enough = next((n for n in range(2, MOST_SEEDS + 1) if is_enough(n)), None)
    if enough is not None:
        return Separation(interval, enough)
    needed = of_examples * (_normal((1 + level) / 2) + _normal(_POWER)) ** 2 / interval.value**2
    examples = math.ceil(count * needed)
    return Separation(interval, None, examples if examples > count else None)


def _multiple(total: float, of_a_seed: float, seeds: int, examples: int, level: float) -> float:
    """Return the smallest difference that is shown with the power, given its variance."""
    from scipy.special import stdtrit

    among_seeds, among_examples = of_a_seed / seeds, total - of_a_seed / seeds
    if total == 0:
        return 0.0
    # Satterthwaite's degrees of freedom, as in ``SeedMean.error``.
    freedom = total**2 / (among_seeds**2 / (seeds - 1) + among_examples**2 / max(1, examples - 1))
    quantiles = float(stdtrit(freedom, (1 + level) / 2)) + float(stdtrit(freedom, _POWER))
    return quantiles * math.sqrt(total)


def _normal(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))
