"""The mean speed of several runs of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from harness.reporting.summary import Estimate


def mean_speed(
    ratios: Sequence[tuple[float | None, tuple[float, float] | None]],
) -> Estimate | None:
    """Return the geometric mean of the runs' relative speeds.

    The runs' intervals are combined as those of independent measurements of one quantity. Where
    the runs differ by more than these allow, the interval is wider by the root of what they differ
    by over what was expected (Birge 1932).
    """
    measured = [(relative, ci) for relative, ci in ratios if relative is not None]
    if not measured:
        return None
    logs = [math.log(relative) for relative, _ in measured]
    mean = fmean(logs)
    halves = [math.log(ci[1] / ci[0]) / 2 for _, ci in measured if ci and ci[0] > 0]
    if len(halves) < len(measured):
        return Estimate(value=math.exp(mean))
    half = math.sqrt(sum(half**2 for half in halves)) / len(halves)
    if len(logs) > 1 and all(halves):
        # Half of a 95 % interval is about two standard errors.
        chi2 = sum((2 * (log - mean) / half) ** 2 for log, half in zip(logs, halves, strict=True))
        half *= math.sqrt(max(1.0, chi2 / (len(logs) - 1)))
    return Estimate(value=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))
