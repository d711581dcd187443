"""Batches: who shares one, how many fit, and when one is due."""

from __future__ import annotations

import pytest

from harness.serving.batch_queue import BatchQueue, Group, Item
from harness.spec.decoding import DecodingSettings

GREEDY = Group(None, DecodingSettings(beams=1, max_new_tokens=10))
BEAMS = Group(None, DecodingSettings(beams=3, max_new_tokens=10))
ADAPTED = Group("one", DecodingSettings(beams=1, max_new_tokens=10))


def item(group: Group = GREEDY, arrived: float = 0, source: int = 10) -> Item:
    return Item([1] * source, group, arrived)


def test_a_batch_waits_until_its_oldest_text_has_waited_long_enough() -> None:
    queue = BatchQueue(budget=1000, max_wait=0.5)
    assert queue.take(0) == []
    assert queue.due(0) is None
    first, second = item(arrived=1.0), item(arrived=1.25)
    queue.add([first, second])
    assert queue.due(1.25) == pytest.approx(0.25)
    assert queue.take(1.25) == []
    assert queue.take(1.5) == [first, second]
    assert len(queue) == 0
    assert queue.tokens == 0


def test_a_batch_that_is_full_is_due_at_once() -> None:
    queue = BatchQueue(budget=40, max_wait=9)
    items = [item(), item(), item()]  # 10 + 1 * 10 tokens each
    queue.add(items)
    assert queue.take(0) == items[:2]
    assert queue.take(0) == []
    assert queue.take(9) == items[2:]


def test_each_text_counts_as_much_as_the_longest_of_its_batch() -> None:
    queue = BatchQueue(budget=100, max_wait=0)
    short, long = [item() for _ in range(3)], item(source=30)
    queue.add([*short[:2], long, short[2]])
    # Three texts of 40 tokens do not fit 100, though 20 + 20 + 40 would.
    assert queue.take(0) == short[:2]
    assert queue.take(0) == [long, short[2]]


def test_a_text_larger_than_the_budget_is_a_batch_of_its_own() -> None:
    queue = BatchQueue(budget=15, max_wait=9)
    items = [item(), item()]
    queue.add(items)
    assert [queue.take(0), queue.take(0)] == [items[:1], items[1:]]


def test_adapters_and_settings_are_never_mixed_and_the_oldest_text_is_first() -> None:
    queue = BatchQueue(budget=1000, max_wait=0)
    a, b, c, d, e = (
        item(BEAMS, arrived=2),
        item(GREEDY, arrived=1),
        item(ADAPTED, arrived=3),
        item(GREEDY, arrived=4),
        item(BEAMS, arrived=5),
    )
    queue.add([b, a, c, d, e])
    assert [queue.take(9) for _ in range(4)] == [[b, d], [a, e], [c], []]


def test_removed_texts_are_in_no_batch() -> None:
    queue = BatchQueue(budget=1000, max_wait=0)
    kept, left, other = item(), item(), item(BEAMS)
    queue.add([left, kept, other])
    assert queue.remove([left, other]) == [left, other]
    assert queue.remove([left]) == []
    assert (len(queue), queue.tokens) == (1, kept.tokens)
    assert queue.take(0) == [kept]
    assert queue.take(0) == []
