"""The mean speed of several runs of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from harness.reporting.summary import Estimate

Ratio = tuple[float | None, tuple[float, float] | None]
"""A relative speed and its 95 % interval."""


def mean_speed(ratios: Sequence[Ratio]) -> Estimate | None:
    """Return the geometric mean of the runs' relative speeds with its 95 % interval.

    Several runs have the t interval of their logarithms, which holds whatever part of their spread
    lies between runs and what part within each: a run's own interval knows the latter alone. By
    chance runs agree better than they can know, so the interval is never narrower than those of
    the runs allow for a mean of independent measurements. One run has its own interval.
    """
    measured = [(relative, ci) for relative, ci in ratios if relative is not None]
    if not measured:
        return None
    logs = [math.log(relative) for relative, _ in measured]
    runs = len(logs)
    mean = fmean(logs)
    halves = [math.log(ci[1] / ci[0]) / 2 for _, ci in measured if ci and ci[0] > 0]
    half = math.hypot(*halves) / runs if len(halves) == runs else None
    if runs > 1:
        squares = math.fsum((log - mean) ** 2 for log in logs)
        error = math.sqrt(squares / (runs - 1) / runs)
        half = max(half or 0.0, t_quantile(runs - 1) * error)
    if half is None:
        return Estimate(value=math.exp(mean))
    low, high = math.exp(mean - half), math.exp(mean + half)
    return Estimate(value=math.exp(mean), low=low, high=high, seeds=runs)


_QUANTILES = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004)
"""97.5 % quantiles of Student's t, from one degree of freedom on: SciPy is slow to import."""


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
