"""Shapes of packed batches: a few sizes that rows are filled up to, so that steps repeat.

A captured CUDA graph holds one step with fixed tensor sizes. The rows of a batch are as long as
its examples together, so hardly two batches have equal sizes. Here a few shapes are chosen from
the sizes of a training's batches, and each batch is filled up to the cheapest shape that holds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.data.examples import Example

STEPS_PER_SHAPE = 20
"""Steps of a training for each of its shapes: a capture costs about two steps."""
MOST_SHAPES = 64
_TOKENS = 16
"""Rows have a multiple of this many tokens, for aligned matrix products."""
_LONGEST = 64
"""Bounds of lengths are multiples of this: the block of an attention kernel."""
_TARGET_COST = 2
"""Cost of a target token, in source tokens: its layers also attend to the source."""
_PADDED_COST = 256
"""Padded attention to this many positions costs about as much as a token's other products."""
_SLACK = 1.05
"""The largest shape exceeds the largest size seen by this factor."""


class BatchSize(NamedTuple):
    """Numbers of sequences and tokens of a batch, and its longest sequences.

    Attributes:
        sequences: number of examples.
        source: tokens of all sources.
        target: tokens of all targets.
        longest_source: tokens of the longest source.
        longest_target: tokens of the longest target.
    """

    sequences: int
    source: int
    target: int
    longest_source: int
    longest_target: int


def size_of(examples: Sequence[Example]) -> BatchSize:
    """Return the size of a batch."""
    sources = [len(e.source) for e in examples]
    targets = [len(e.target) for e in examples]
    return BatchSize(len(examples), sum(sources), sum(targets), max(sources), max(targets))


@dataclass(frozen=True)
class RowShape:
    """Size of a packed row.

    Attributes:
        tokens: number of all tokens, with those of the filler.
        longest: a bound on the tokens of a sequence.
    """

    tokens: int
    longest: int

    def holds(self, tokens: int, longest: int) -> bool:
        """Return whether a row fits. One more sequence fills the rest; it has a token at least."""
        return longest <= self.longest and 1 <= self.tokens - tokens <= self.longest


@dataclass(frozen=True)
class BatchShape:
    """Sizes of both rows of a batch.

    Attributes:
        sequences: number of examples; the sequence that fills a row comes on top.
        source: the encoder's row.
        target: the decoder's row.
    """

    sequences: int
    source: RowShape
    target: RowShape

    def holds(self, size: BatchSize) -> bool:
        """Return whether a batch of this size fits."""
        return (
            size.sequences == self.sequences
            and self.source.holds(size.source, size.longest_source)
            and self.target.holds(size.target, size.longest_target)
        )


class Shapes:
    """The shapes of a training, the cheapest first.

    Args:
        shapes: shapes of batches.
        by_rows: whether attention takes packed rows; otherwise it pads all sequences to the bound.
    """

    def __init__(self, shapes: Iterable[BatchShape], by_rows: bool) -> None:
        self.ordered = sorted(shapes, key=lambda shape: _cost(_row_of(shape), by_rows))

    def fitting(self, size: BatchSize) -> BatchShape | None:
        """Return the cheapest shape that holds a batch of this size, or None."""
        return next((shape for shape in self.ordered if shape.holds(size)), None)


def choose_shapes(sizes: Sequence[BatchSize], planned_steps: int, by_rows: bool) -> Shapes:
    """Choose shapes for batches of these sizes, so that little is filled up.

    Shapes are added one by one: each time the one that saves most. Batches with fewer examples
    than most, as at the end of an epoch, have none.

    Args:
        sizes: sizes of the batches, or of a sample of them; not empty.
        planned_steps: number of steps of the training.
        by_rows: whether attention takes packed rows; the bounds then cost nothing.
    """
    sequences = Counter(size.sequences for size in sizes).most_common(1)[0][0]
    seen = np.array([size[1:] for size in sizes if size.sequences == sequences])
    tokens = _up(np.vstack([seen[:, :2] + 1, seen[:, :2].max(0) * _SLACK + 1]), _TOKENS)
    longest = _up(np.vstack([seen[:, 2:], seen[:, 2:].max(0)]), _LONGEST)
    if by_rows:
        longest[:] = longest.max(0)
    candidates = np.unique(np.hstack([tokens, longest]), axis=0)
    rest = candidates[:, None, :2] - seen[None, :, :2]
    holds = ((rest >= 1) & (rest <= candidates[:, None, 2:])).all(-1)
    holds &= (candidates[:, None, 2:] >= seen[None, :, 2:]).all(-1)
    costs = np.array([_cost((sequences, *row), by_rows) for row in candidates.tolist()])
    by_size = np.where(holds, costs[:, None], np.inf)
    most = min(MOST_SHAPES, max(1, planned_steps // STEPS_PER_SHAPE))
    chosen = _greedily(by_size, most)
    shapes = [
        BatchShape(sequences, RowShape(source, longest_source), RowShape(target, longest_target))
        for source, target, longest_source, longest_target in candidates[chosen].tolist()
    ]
    return Shapes(shapes, by_rows)


def _greedily(costs: np.ndarray[tuple[int, int], np.dtype[np.float64]], most: int) -> list[int]:
    """Return the rows of which each batch takes the cheapest.

    Args:
        costs: cost of each batch in each shape, infinite if it does not fit; shape
            (shapes, batches).
        most: largest number of rows.
    """
    # Outside all shapes a batch costs twice as much as in the worst of them.
    finite = np.where(np.isfinite(costs), costs, 0)
    best = np.full(costs.shape[1], 2 * finite.max() + 1)
    chosen: list[int] = []
    while len(chosen) < most:
        gains = (best - np.minimum(best, costs)).sum(1)
        winner = int(gains.argmax())
        if gains[winner] <= 0:
            break
        chosen.append(winner)
        best = np.minimum(best, costs[winner])
    return chosen


def _row_of(shape: BatchShape) -> tuple[int, int, int, int, int]:
    source, target = shape.source, shape.target
    return shape.sequences, source.tokens, target.tokens, source.longest, target.longest


def _cost(row: tuple[int, int, int, int, int], by_rows: bool) -> float:
    """Return the cost of a step in source tokens."""
    sequences, source, target, longest_source, longest_target = row
    cost = float(source + _TARGET_COST * target)
    if not by_rows:
        cost += (sequences + 1) * (longest_source**2 + longest_target**2) / _PADDED_COST
    return cost


def _up(
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]], multiple: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return (np.ceil(values / multiple) * multiple).astype(np.int64)
