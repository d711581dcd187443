"""Predictions keep the order, batches fit their budget, and known ones change no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from harness.generation.batch_predictor import BatchPredictor

ROWS = st.lists(st.tuples(st.text("ab \n", max_size=9), st.sampled_from([None, "a", "b"])))


def expected(rows: list[tuple[str, str | None]]) -> list[str]:
    return [
        ((f"{adapter}:" if adapter else "") + text.upper()) if text.strip() else ""
        for text, adapter in rows
    ]


@given(rows=ROWS, budget=st.integers(1, 99), room=st.integers(1, 9))
def test_any_texts_keep_their_order_and_adapters(
    upper: Any, rows: list[tuple[str, str | None]], budget: int, room: int
) -> None:
    model = upper()
    model.room = room
    predicted = BatchPredictor(model, budget).predict([t for t, _ in rows], [a for _, a in rows])
    assert predicted.texts == expected(rows)
    assert predicted.prediction_tokens == sum(map(len, expected(rows)))
    assert sum(size for size, _ in model.batches) == sum(bool(t.strip()) for t, _ in rows)
    switches = [name for _, name in model.batches]
    assert switches == sorted(switches, key=lambda name: name or "")


def test_a_batch_holds_sources_and_beams_within_the_budget(upper: Any) -> None:
    model = upper(beams=2, max_new_tokens=10)
    texts = ["abcde", "x", "abcde", "abc", "ab"]
    predicted = BatchPredictor(model, 2 * (5 + 2 * 10)).predict(texts, [None] * 5)
    assert predicted.texts == [text.upper() for text in texts]
    assert [size for size, _ in model.batches] == [2, 2, 1]
    assert predicted.source_tokens == predicted.prediction_tokens == 16


@given(rows=ROWS, budget=st.integers(1, 99), data=st.data())
def test_known_batches_are_left_out_and_change_no_other(
    upper: Any, rows: list[tuple[str, str | None]], budget: int, data: st.DataObject
) -> None:
    arguments = [t for t, _ in rows], [a for _, a in rows]
    whole, seen = upper(), list[dict[int, str]]()
    predicted = BatchPredictor(whole, budget).predict(*arguments, on_batch=seen.append)
    done = data.draw(st.integers(0, len(seen)))
    earlier = {index: text for batch in seen[:done] for index, text in batch.items()}
    rest = upper()
    assert BatchPredictor(rest, budget).predict(*arguments, earlier=earlier) == predicted
    assert rest.batches == whole.batches[done:]


def test_the_budget_is_halved_until_a_batch_fits(upper: Any) -> None:
    model = upper()
    model.room = 3
    budgets: list[int] = []
    predictor = BatchPredictor(model, 160, budgets.append)
    assert predictor.predict(["abcdef"] * 20, [None] * 20).texts == ["ABCDEF"] * 20
    assert budgets == [80, 40]
    assert {size for size, _ in model.batches} == {2}
    assert predictor.batch_tokens == 40


def test_a_single_source_without_memory_is_an_error_of_the_user(upper: Any) -> None:
    model = upper()
    model.room = 0
    with pytest.raises(HarnessError, match="--beams 1") as caught:
        BatchPredictor(model, 100).predict(["secret words"], [None])
    assert "secret" not in str(caught.value)
