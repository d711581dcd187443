"""Draws of a bootstrap over training seeds and test examples, and what they must not be given."""

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
"""Resamples of a block."""

_BLOCK = 1 << 22
"""Draws that are held in memory at once."""
_TOGETHER = 100
"""Scores that one product of matrices serves."""
_COLUMNS = 40
"""Statistics of a score beyond which no linear function is fitted: it would follow the noise."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A score under the draws of one block, and the linear function that is closest to it.

    Attributes:
        values: corpus values, of shape (resamples,).
        linear: the linear function's differences from its value over all examples, of the same
            shape. For a mean they are those of the values.
        influence: of each example on the linear function; they sum to zero.
        gradient: of the linear function by the sums of statistics.
    """

    values: FloatArray
    linear: FloatArray
    influence: FloatArray
    gradient: FloatArray


class Bootstrap:
    """Resamples that all compared systems share: the same draws of examples and of seeds.

    Scores are resampled together where that is requested, since one product of matrices serves
    all of them, and what was resampled is kept until the object is gone.

    Args:
        resamples: of a block.
        seed: seeds all draws; equal seeds give equal draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.resamples, self._seed = resamples, seed
        self._kept: dict[tuple[int, int, int], Resampled] = {}
        self._scores: list[Score] = []  # Alive, so that no other object gets one's id.

    def resample(self, scores: Sequence[Score], stream: int = 0, block: int = 0) -> list[Resampled]:
        """Resample scores of the same test examples.

        Args:
            scores: of equal numbers of examples.
            stream: draws of the same stream are the same; test examples of their own take another.
            block: each has new draws.
        """
        keys = [(id(score), stream, block) for score in scores]
        new = {key: s for key, s in zip(keys, scores, strict=True) if key not in self._kept}
        for start in range(0, len(new), _TOGETHER):
            some = dict(list(new.items())[start : start + _TOGETHER])
            self._scores += some.values()
            fitted = self.resample(list(some.values()), stream) if block else None
            made = self._draw(list(some.values()), stream, block, fitted)
            self._kept.update(zip(some, made, strict=True))
        return [self._kept[key] for key in keys]

    def seed_weights(self, seeds: int, block: int = 0) -> FloatArray:
        """Return the weight of each seed in each resample, of shape (seeds, resamples)."""
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
    """Return corpus values of one score, of shape (resamples,)."""
    counts = _draw_counts(len(score.statistics), resamples, rng)
    return score.aggregate(np.concatenate([block @ score.statistics for block in counts]))


def _gradient(offsets: FloatArray, totals: FloatArray, values: FloatArray) -> FloatArray:
    """Return the slopes of the linear function of the sums that is closest to the values.

    Args:
        offsets: the resamples' sums less those of all examples.
        totals: the sums of all examples.
        values: the resamples' corpus values.
    """
    slopes = np.zeros(len(totals))
    if len(totals) > _COLUMNS or not np.isfinite(values).all():
        return slopes
    # Rounding makes a constant column vary a little: it has no slope.
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
    """Yield the counts of ``_draw_counts``; those of one block in memory are kept for the next."""
    if examples * resamples <= _BLOCK:
        yield _kept_counts(examples, resamples, seed)
    else:
        yield from _draw_counts(examples, resamples, np.random.default_rng(seed))


@functools.lru_cache(maxsize=2)
def _kept_counts(examples: int, resamples: int, seed: tuple[int, int, int]) -> FloatArray:
    (counts,) = _draw_counts(examples, resamples, np.random.default_rng(seed))
    return counts


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
