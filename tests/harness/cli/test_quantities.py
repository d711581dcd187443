"""Times, shares and sizes as users write them."""

from __future__ import annotations

import pytest

from harness.cli.quantities import ratio, seconds, size, time_span, times
from harness.errors import HarnessError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5 h", 5400), ("1d", 86400)],
)
def test_a_time_span_may_have_several_units(text: str, expected: float) -> None:
    assert time_span(text, "--budget") == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "2h and", "-2h"])
def test_a_text_without_a_unit_is_no_time_span(text: str) -> None:
    with pytest.raises(HarnessError, match="--budget"):
        time_span(text, "--budget")


def test_a_speed_is_a_factor_or_a_share() -> None:
    assert [times(text, "--speed") for text in ("2x", "200%", "2", "1.5x")] == [2, 2, 2, 1.5]
    assert ratio("95%", "--min-quality") == 0.95
    assert size("16GiB", "--max-memory") == 16 * 2**30
    assert seconds("50ms") == 0.05
    with pytest.raises(HarnessError, match="200 times"):
        times("200", "--speed")
