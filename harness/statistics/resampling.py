"""Resamples of a bootstrap over training seeds and test examples, and checks of their input."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.api.metric import Score

if TYPE_CHECKING:
    from harness.api.arrays import FloatArray

RESAMPLES = 2000
"""Number of resamples in a block."""

_BLOCK = 1 << 22
"""Draws in memory at once, at most."""
_TOGETHER = 100
"""Scores that are resampled by one matrix product, at most."""
_COLUMNS = 40
"""Statistics of a score, at most, to which a linear function is fitted; with more it would fit the
noise."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A score's values in the resamples of one block, and the linear function closest to them.

    Attributes:
        values: corpus values, shape (resamples,).
        linear: differences of the linear function from its value over all examples, shape
            (resamples,). For a mean they equal the differences of the values.
        influence: influence of each example on the linear function, shape (examples,); sums to
            zero.
        gradient: gradient of the linear function by the sums of statistics, shape (statistics,).
    """

    values: FloatArray
    linear: FloatArray
    influence: FloatArray
    gradient: FloatArray


class Bootstrap:
    """Resamples that all compared systems share: the same draws of examples and of seeds.

    Scores of one call are resampled together, by one matrix product. The results are cached for
    the lifetime of the object.

    Args:
        resamples: number of resamples in a block.
        seed: seeds all draws; equal seeds give equal draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.resamples, self._seed = resamples, seed
        self._cache: dict[tuple[int, int, int], Resampled] = {}
        self._scores: list[Score] = []  # Kept, so that no other object gets one of their ids.

    def resample(self, scores: Sequence[Score], stream: int = 0, block: int = 0) -> list[Resampled]:
        """Resample scores of the same test examples.

        Args:
            scores: scores with equal numbers of examples.
            stream: number of the stream of draws. Scores on the same test examples must have the
                same stream; separate test examples need separate streams.
            block: number of the block; each block has new draws.
        """
        keys = [(id(score), stream, block) for score in scores]
        new = {key: s for key, s in zip(keys, scores, strict=True) if key not in self._cache}
        for start in range(0, len(new), _TOGETHER):
            group = dict(list(new.items())[start : start + _TOGETHER])
            self._scores += group.values()
            fitted = self.resample(list(group.values()), stream) if block else None
            resampled = self._draw(list(group.values()), stream, block, fitted)
            self._cache.update(zip(group, resampled, strict=True))
        return [self._cache[key] for key in keys]

    def seed_weights(self, seeds: int, block: int = 0) -> FloatArray:
        """Return the weight of each seed in each resample, shape (seeds, resamples)."""
        return _seed_weights(seeds, self.resamples, (self._seed, block))

    def _draw(
        self, scores: Sequence[Score], stream: int, block: int, fitted: list[Resampled] | None
    ) -> Iterator[Resampled]:
        edges = np.cumsum([0, *(score.statistics.shape[1] for score in scores)])
        together = np.concatenate([score.statistics for score in scores], axis=1)
        seed = (self._seed, stream, block)
        sums = np.concatenate(
            [counts @ together for counts in _counts(len(together), self.resamples, seed)]
        )
        totals = np.concatenate([score.statistics.sum(axis=0) for score in scores])
        offsets = sums - totals
        for number, score in enumerate(scores):
            columns = slice(edges[number], edges[number + 1])
            values = np.asarray(score.aggregate(sums[:, columns]), dtype=np.float64)
            gradient = (
                fitted[number].gradient
                if fitted
                else _gradient(offsets[:, columns], totals[columns], values)
            )
            linear = offsets[:, columns] @ gradient
            influence = (score.statistics - score.statistics.mean(axis=0)) @ gradient
            yield Resampled(values, linear, influence, gradient)


def resample(score: Score, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return resampled corpus values of one score, shape (resamples,)."""
    counts = _draw_counts(len(score.statistics), resamples, rng)
    return score.aggregate(np.concatenate([block @ score.statistics for block in counts]))


def _gradient(offsets: FloatArray, totals: FloatArray, values: FloatArray) -> FloatArray:
    """Fit a linear function of the sums to the values by least squares, and return its slopes.

    Args:
        offsets: the resamples' sums minus those of all examples, shape (resamples, statistics).
        totals: the sums over all examples, shape (statistics,).
        values: the resamples' corpus values, shape (resamples,).
    """
    slopes = np.zeros(len(totals))
    if len(totals) > _COLUMNS or not np.isfinite(values).all():
        return slopes
    # A column that varies by rounding alone is constant and has no slope.
    (varies,) = np.nonzero(np.ptp(offsets, axis=0) > 1e-9 * np.abs(totals))
    centred = offsets[:, varies] - offsets[:, varies].mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    scaled = centred / scale
    products = scaled.T @ scaled
    inverse = 1 / products if len(varies) == 1 else np.linalg.pinv(products, hermitian=True)
    slopes[varies] = inverse @ (scaled.T @ (values - values.mean())) / scale
    return slopes


@functools.lru_cache(maxsize=64)
def _seed_weights(seeds: int, resamples: int, seed: tuple[int, int]) -> FloatArray:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    weights: FloatArray = drawn.T / seeds
    return weights


def _counts(examples: int, resamples: int, seed: tuple[int, int, int]) -> Iterator[FloatArray]:
    """Yield the counts of ``_draw_counts``; if they fit in one block they are cached."""
    if examples * resamples <= _BLOCK:
        yield _cached_counts(examples, resamples, seed)
    else:
        yield from _draw_counts(examples, resamples, np.random.default_rng(seed))


@functools.lru_cache(maxsize=2)
def _cached_counts(examples: int, resamples: int, seed: tuple[int, int, int]) -> FloatArray:
    (counts,) = _draw_counts(examples, resamples, np.random.default_rng(seed))
    return counts


def _draw_counts(examples: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield how often each resample drew each example, in blocks of shape (resamples, examples)."""
    rows = max(1, _BLOCK // examples)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(examples, size=(count, examples))
        drawn += examples * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * examples)
        yield counts.reshape(count, examples).astype(np.float64)


def check(scores: Sequence[Score], level: float, resamples: int) -> None:
    """Check that scores have a valid interval.

    Raises:
        ValueError: too few resamples or examples, different metrics, or values that are not finite.
    """
    check_level(level)
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few for an interval; use 1000 or more.")
    if not scores:
        raise ValueError("There are no scores to compare.")
    if signatures := sorted({score.signature for score in scores[1:]} - {scores[0].signature}):
        raise ValueError(f"Different metrics: {scores[0].signature!r} and {signatures[0]!r}.")
    sizes = sorted({len(score.statistics) for score in scores})
    if len(sizes) > 1:
        raise ValueError(f"Scores have different numbers of test examples: {sizes}.")
    if sizes[0] < 2:
        raise ValueError(f"An interval needs at least two test examples; got {sizes[0]}.")
    if not all(np.isfinite(score.statistics).all() for score in scores):
        raise ValueError("A score holds values that are not finite.")


def check_level(level: float) -> None:
    """Raise ValueError for a confidence level outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"The confidence level lies between 0 and 1, not {level}.")
