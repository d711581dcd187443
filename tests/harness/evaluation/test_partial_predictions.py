"""The file of partial predictions holds complete batches only."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ManualClock
from harness.evaluation.partial_predictions import PartialPredictions

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
BATCHES = st.lists(st.dictionaries(st.integers(0, 50), TEXTS, min_size=1, max_size=3), max_size=4)


@given(batches=BATCHES, lost=st.integers(0, 40))
def test_only_complete_batches_count(
    tmp_path_factory: pytest.TempPathFactory, batches: list[dict[int, str]], lost: int
) -> None:
    path = tmp_path_factory.mktemp("partial") / "predictions.partial.jsonl"
    partial = PartialPredictions(path)
    ends, known_after = [0], [dict[int, str]()]
    for batch in batches:
        partial.add(batch)
        ends.append(path.stat().st_size)
        known_after.append({**known_after[-1], **batch})
    assert PartialPredictions(path).predictions == partial.predictions == known_after[-1]
    # The process died while it wrote the end of the file.
    left = max(0, ends[-1] - lost)
    path.write_bytes(path.read_bytes()[:left])
    last = max(i for i, end in enumerate(ends) if end <= left)
    again = PartialPredictions(path)
    assert again.predictions == known_after[last]
    assert path.stat().st_size == ends[last]
    again.add({77: "the next"})
    assert PartialPredictions(path).predictions == {**known_after[last], 77: "the next"}


def test_reading_stops_at_a_damaged_line(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    PartialPredictions(path).add({0: "first"})
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    assert PartialPredictions(path).predictions == {0: "first"}


def test_only_the_time_of_stored_batches_counts(tmp_path: Path, manual_clock: ManualClock) -> None:
    path = tmp_path / "partial.jsonl"
    partial = PartialPredictions(path)
    assert partial.seconds == 0
    manual_clock.sleep(0.1)
    partial.add({0: "first"})
    manual_clock.sleep(0.3)  # This time is lost, since no batch was finished.
    again = PartialPredictions(path)
    assert again.seconds == pytest.approx(0.1)
    manual_clock.sleep(0.1)
    again.add({1: "second"})
    assert PartialPredictions(path).seconds == pytest.approx(0.2)
