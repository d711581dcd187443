"""The comparison of training refuses an input that handicaps the peer."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return pytest.importorskip("work")


def _lengths(batches: list[list[object]]) -> list[tuple[int, ...]]:
    return sorted(tuple(e.source) for batch in batches for e in batch)  # type: ignore[attr-defined]


def test_grouping_pads_little_and_all_train_the_same_examples(work: ModuleType) -> None:
    case = work.Case("nano-t5", "lora_ff", 8, 1, 10, 1)
    case.check()
    grouped, plain = case.batches(True), case.batches(False)
    assert work.real_share(grouped) >= 0.7
    assert work.real_share(plain) < 0.55
    assert _lengths(grouped[:1]) == _lengths(plain[:1])
    assert _lengths(grouped[1:]) == _lengths(plain[1:])


def test_lengths_that_do_not_spread_are_refused(
    work: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    skewed = work.make_examples
    monkeypatch.setattr(work, "make_examples", lambda n, vocabulary, _: skewed(n, vocabulary, True))
    with pytest.raises(SystemExit, match="degenerate"):
        work.Case("nano-t5", "lora_ff", 8, 1, 10, 1).check()


def test_a_peer_that_groups_nothing_is_refused(
    work: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        work.Case, "batches", lambda case, _: work._shuffled([work.make_examples(80, 99, False)], 8)
    )
    with pytest.raises(SystemExit, match="degenerate"):
        work.Case("nano-t5", "lora_ff", 8, 1, 10, 1).check()
