"""Draws of a bootstrap over training seeds and test examples, and what they must not be given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.metric import Score

if TYPE_CHECKING:
    from harness.metric import FloatArray

_BLOCK = 1 << 22
"""Draws that are held in memory at once."""


def seed_weights(seeds: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return the weight of each seed in each resample, of shape (seeds, resamples)."""
    weights: FloatArray = (
        rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T / seeds
    )
    return weights


def resample_systems(
    systems: Sequence[Sequence[Score]],
    shared_examples: bool,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return corpus values of shape (systems, seeds, resamples).

    What sees the same draws: all systems on all seeds, or, where the seeds have test examples of
    their own, all systems on one seed.
    """
    by_seed = list(zip(*systems, strict=True))
    together = [[score for seed in by_seed for score in seed]] if shared_examples else by_seed
    blocks = []
    for scores in together:
        check(scores, level, resamples)
        blocks.append(resample(scores, resamples, rng))
    if signatures := sorted({seed[0].signature for seed in by_seed} - {by_seed[0][0].signature}):
        raise ValueError(f"Unlike metrics: {by_seed[0][0].signature!r} and {signatures[0]!r}.")
    values = np.concatenate(blocks).reshape(len(by_seed), len(systems), resamples)
    return values.swapaxes(0, 1)


def resample(scores: Sequence[Score], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return corpus values of shape (scores, resamples); all scores see the same draws."""
    edges = np.cumsum([0, *(score.statistics.shape[1] for score in scores)])
    together = np.concatenate([score.statistics for score in scores], axis=1)
    sums = np.concatenate(
        [counts @ together for counts in _draw_counts(len(together), resamples, rng)]
    )
    return np.array(
        [
            score.aggregate(sums[:, start:end])
            for score, start, end in zip(scores, edges, edges[1:], strict=False)
        ]
    )


def _draw_counts(examples: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield how often each resample drew each example, in blocks (some resamples, examples)."""
    rows = max(1, _BLOCK // examples)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(examples, size=(count, examples))
        drawn += examples * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * examples)
        yield counts.reshape(count, examples).astype(np.float64)


def check(scores: Sequence[Score], level: float, resamples: int) -> None:
    """Refuse what has no honest interval.

    Raises:
        ValueError: too few resamples or examples, unlike metrics, or values that are not finite.
    """
    check_level(level)
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few for an interval; use 1000 or more.")
    if not scores:
        raise ValueError("There are no scores to compare.")
    if signatures := sorted({score.signature for score in scores[1:]} - {scores[0].signature}):
        raise ValueError(f"Unlike metrics: {scores[0].signature!r} and {signatures[0]!r}.")
    sizes = sorted({len(score.statistics) for score in scores})
    if len(sizes) > 1:
        raise ValueError(f"Scores of unequal numbers of test examples: {sizes}.")
    if sizes[0] < 2:
        raise ValueError(f"An interval needs at least two test examples; got {sizes[0]}.")
    if not all(np.isfinite(score.statistics).all() for score in scores):
        raise ValueError("A score holds values that are not finite.")


def check_level(level: float) -> None:
    """Raise ValueError for a confidence level outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"The confidence level lies between 0 and 1, not {level}.")
