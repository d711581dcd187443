"""Schedules: permutations that can be resumed, hashes, and batches prepared ahead of time."""

import threading
from collections.abc import Generator, Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.examples import Example
from harness.training.engines.padded import Batch, PaddedEngine
from harness.training.schedule import Schedule, Step, prefetch, schedule_hash

COUNTS = st.integers(1, 30)
SIZES = st.integers(1, 5)
SEEDS = st.integers(0, 2**32)


def numbered(count: int) -> list[Example]:
    return [Example([i, 1], [i]) for i in range(count)]


def order(steps: Sequence[Step]) -> list[int]:
    return [e.target[0] for step in steps for batch in step.micro_batches for e in batch]


@given(COUNTS, SIZES, SIZES, SEEDS)
def test_every_epoch_is_a_permutation_in_full_steps_but_the_last(
    count: int, batch_size: int, accumulation: int, seed: int
) -> None:
    schedule = Schedule(numbered(count), batch_size, accumulation, seed)
    per_epoch = schedule.steps_per_epoch
    for epoch in range(3):
        steps = list(schedule.steps(epoch * per_epoch, per_epoch))
        assert sorted(order(steps)) == list(range(count))
        *full, last = steps
        assert all([*map(len, s.micro_batches)] == [batch_size] * accumulation for s in full)
        *full_batches, last_batch = last.micro_batches
        assert all(len(batch) == batch_size for batch in full_batches)
        assert 1 <= len(last_batch) <= batch_size
        assert last.examples == count - batch_size * accumulation * (per_epoch - 1)


@given(COUNTS, SIZES, SEEDS, st.integers(0, 40), st.integers(0, 40))
def test_resumed_from_any_step_the_steps_are_the_same(
    count: int, batch_size: int, seed: int, first: int, more: int
) -> None:
    schedule = Schedule(numbered(count), batch_size, 2, seed)
    whole = list(schedule.steps(0, first + more))
    assert list(Schedule(numbered(count), batch_size, 2, seed).steps(first, more)) == whole[first:]


def test_epochs_and_seeds_differ() -> None:
    schedule = Schedule(numbered(40), 4, 1, seed=0)
    orders = [order(list(schedule.steps(10 * epoch, 10))) for epoch in range(3)]
    orders.append(order(list(Schedule(numbered(40), 4, 1, seed=1).steps(0, 10))))
    assert len({tuple(o) for o in [*orders, list(range(40))]}) == 5


@pytest.mark.parametrize(
    ("epochs", "max_steps", "planned"),
    [(1, None, 10), (0.25, None, 3), (1.1, None, 11), (3, 7, 7), (0.5, 7, 5), (1e-9, None, 1)],
)
def test_planned_steps(epochs: float, max_steps: int | None, planned: int) -> None:
    assert Schedule(numbered(39), 2, 2, 0).planned_steps(epochs, max_steps) == planned


def test_a_step_counts_its_tokens() -> None:
    step = Step(((Example([1, 2, 3], [4]), Example([5], [6, 7])), (Example([8, 9], [1] * 5),)))
    assert (step.source_tokens, step.target_tokens, step.examples) == (6, 8, 3)


A, B = Example([1, 2], [3]), Example([4], [5, 6])


@pytest.mark.parametrize(
    "other",
    [
        [Step(((B, A),))],
        [Step(((A,), (B,)))],
        [Step(((A,),)), Step(((B,),))],
        [Step(((Example([1, 7], [3]), B),))],
        [Step(((Example([1, 2], [7]), B),))],
        [Step(((Example([1], [2, 3]), B),))],
        [Step(((A,),))],
        [],
    ],
    ids=["order", "cut", "steps", "source", "target", "border", "fewer", "none"],
)
def test_the_hash_depends_on_ids_and_order(other: list[Step]) -> None:
    assert schedule_hash(other) != schedule_hash([Step(((A, B),))])


def test_equal_schedules_have_equal_hashes() -> None:
    one, same, other = (Schedule(numbered(20), 3, 2, seed) for seed in (0, 0, 1))
    assert schedule_hash(one.steps(0, 9)) == schedule_hash(same.steps(0, 9))
    assert schedule_hash(one.steps(0, 9)) != schedule_hash(other.steps(0, 9))


def collate(examples: Sequence[Example]) -> Batch:
    return PaddedEngine(0, torch.float32, "cpu").collate(examples)


@given(COUNTS, SIZES)
def test_prefetching_keeps_the_order(count: int, batch_size: int) -> None:
    steps = list(Schedule(numbered(count), batch_size, 2, 0).steps(0, 12))
    seen = list(prefetch(iter(steps), collate))
    assert [step for step, _ in seen] == steps
    for step, batches in seen:
        labels = [row for batch in batches for row in batch.tensors["labels"][:, 0].tolist()]
        assert labels == order([step])


def test_batches_are_prepared_in_another_thread_and_at_most_three_ahead() -> None:
    made: list[int] = []

    def note(examples: Sequence[Example]) -> Batch:
        made.append(threading.get_ident())
        return collate(examples)

    before = threading.active_count()
    stream = prefetch(Schedule(numbered(50), 1, 1, 0).steps(0, 50), note)
    next(stream)
    assert isinstance(stream, Generator)
    stream.close()
    assert 1 <= len(made) <= 3
    assert threading.get_ident() not in made
    assert threading.active_count() == before


def test_an_error_in_making_a_batch_comes_up_at_its_step() -> None:
    def fail_on_third(examples: Sequence[Example]) -> Batch:
        if examples[0].target == [2]:
            raise ValueError("the third")
        return collate(examples)

    stream = prefetch([Step(((e,),)) for e in numbered(9)], fail_on_third)
    assert [order([next(stream)[0]]) for _ in range(2)] == [[0], [1]]
    with pytest.raises(ValueError, match="the third"):
        next(stream)
    assert list(stream) == []


def test_an_error_in_choosing_a_step_is_passed_on() -> None:
    def steps() -> Iterator[Step]:
        yield Step(((A,),))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(prefetch(steps(), collate))
