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

    The interval of one run is the run's own. The interval of several runs is Student's t of the
    logarithms: it covers the spread between runs as well as the spread within each. Runs may agree
    closely by chance, so the interval is at least as wide as the runs' own intervals imply for a
    mean of independent measurements.

    Args:
        ratios: the relative speed and interval of each run; runs without a speed are ignored.

    Returns:
        The mean, or None if no run has a relative speed.
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
"""97.5 % quantiles of Student's t for 1 to 8 degrees of freedom, as SciPy is slow to import."""


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Args:
        freedom: the degrees of freedom.
    """
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
