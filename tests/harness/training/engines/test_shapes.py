"""The shapes that packed batches are filled up to."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.examples import Example
from harness.training.engines.shapes import (
    MOST_SHAPES,
    BatchShape,
    BatchSize,
    RowShape,
    Shapes,
    choose_shapes,
    size_of,
)

LENGTHS = st.lists(st.tuples(st.integers(1, 512), st.integers(1, 128)), min_size=4, max_size=4)
SIZES = st.lists(
    LENGTHS.map(lambda pairs: size_of([Example([1] * n, [1] * m) for n, m in pairs])),
    min_size=1,
    max_size=30,
)


def skewed(count: int, seed: int = 0) -> list[BatchSize]:
    """Return sizes of batches of 8 whose lengths vary by 0.7 around their logarithm."""
    draw = random.Random(seed)

    def length(mean: float, most: int) -> int:
        return max(1, min(most, round(mean * draw.lognormvariate(-0.25, 0.7))))

    return [
        size_of([Example([1] * length(130, 512), [1] * length(60, 128)) for _ in range(8)])
        for _ in range(count)
    ]


def share_filled(shapes: Shapes, sizes: list[BatchSize]) -> float:
    """Return the share of tokens that are fillers, over the batches that a shape holds."""
    pairs = [(shapes.fitting(size), size) for size in sizes]
    held = [(shape, size) for shape, size in pairs if shape]
    rows = sum(shape.source.tokens + shape.target.tokens for shape, _ in held)
    return 1 - sum(size.source + size.target for _, size in held) / rows


@given(SIZES, st.integers(1, 2000), st.booleans())
def test_a_fitting_shape_holds_the_batch(
    sizes: list[BatchSize], planned: int, by_rows: bool
) -> None:
    shapes = choose_shapes(sizes, planned, by_rows)
    assert 1 <= len(shapes.ordered) <= max(1, planned // 20)
    for size in sizes:
        shape = shapes.fitting(size)
        if shape is None:
            continue
        for row, tokens, longest in (
            (shape.source, size.source, size.longest_source),
            (shape.target, size.target, size.longest_target),
        ):
            assert 1 <= row.tokens - tokens <= row.longest
            assert longest <= row.longest
            assert row.tokens % 16 == row.longest % 64 == 0


def test_more_shapes_leave_less_to_fill_and_the_limit_is_a_tenth() -> None:
    sample, later = skewed(512), skewed(512, seed=1)
    filled = [
        share_filled(choose_shapes(sample, planned, by_rows=True), later)
        for planned in (80, 320, 1280)
    ]
    assert filled == sorted(filled, reverse=True)
    assert filled[-1] < 0.1
    shapes = choose_shapes(sample, 10**6, by_rows=True)
    assert len(shapes.ordered) == MOST_SHAPES
    assert sum(shapes.fitting(size) is None for size in later) < 0.02 * len(later)


def test_equal_lengths_have_one_shape() -> None:
    sizes = [BatchSize(8, 4096, 1024, 512, 128)] * 50
    shapes = choose_shapes(sizes, 1000, by_rows=False)
    fitting = shapes.fitting(sizes[0])
    assert fitting == BatchShape(8, RowShape(4112, 512), RowShape(1040, 128))


def test_where_attention_pads_a_batch_of_short_sequences_has_a_shape_of_its_own() -> None:
    short, long = BatchSize(8, 800, 400, 110, 60), BatchSize(8, 800, 400, 500, 60)
    by_rows, padded = (choose_shapes([short, long] * 20, 40, rows) for rows in (True, False))
    assert by_rows.fitting(short) == by_rows.fitting(long)
    found = padded.fitting(short), padded.fitting(long)
    assert [shape.source.longest for shape in found if shape] == [128, 512]


def test_a_smaller_batch_has_no_shape() -> None:
    shapes = choose_shapes([BatchSize(8, 800, 400, 110, 60)] * 20, 100, by_rows=True)
    assert shapes.fitting(BatchSize(7, 790, 390, 110, 60)) is None


@pytest.mark.parametrize("tokens", [800, 816])
def test_a_full_row_does_not_fit(tokens: int) -> None:
    """The sequence that fills a row has one token at least: an empty one would have no scores."""
    row = RowShape(816, 128)
    assert row.holds(tokens, 100) == (tokens < 816)
