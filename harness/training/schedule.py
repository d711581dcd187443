"""Which examples make up which optimizer step, and batches made ahead of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from harness.data.examples import Example
from harness.training.engines.padded import Batch

_AHEAD = 2


@dataclass(frozen=True)
class Step:
    """The examples of one optimizer step, cut into micro-batches."""

    micro_batches: tuple[tuple[Example, ...], ...]

    @property
    def target_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(len(e.target) for batch in self.micro_batches for e in batch)

    @property
    def source_tokens(self) -> int:
        """Tokens of the sources."""
        return sum(len(e.source) for batch in self.micro_batches for e in batch)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(map(len, self.micro_batches))


class Schedule:
    """The order of the examples: each epoch is its own seeded permutation.

    Args:
        examples: of the training split; not empty.
        batch_size: examples in a micro-batch.
        accumulation: micro-batches in an optimizer step; an epoch's last step may be smaller.
        seed: equal seeds give equal orders.
    """

    def __init__(
        self, examples: Sequence[Example], batch_size: int, accumulation: int, seed: int
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.step_size = batch_size * accumulation
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over the examples."""
        return math.ceil(len(self.examples) / self.step_size)

    def planned_steps(self, epochs: float, max_steps: int | None) -> int:
        """Return how many optimizer steps so many epochs are, at most ``max_steps``."""
        # Rounded first: 1.1 x 10 is a little more than 11 in binary.
        planned = max(1, math.ceil(round(epochs * self.steps_per_epoch, 6)))
        return planned if max_steps is None else min(planned, max_steps)

    def steps_between_evaluations(self, epochs: float) -> int:
        """Return how many optimizer steps so many epochs are, at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def steps(self, first: int, count: int) -> Iterator[Step]:
        """Yield the optimizer steps ``first``, ``first + 1``, ... (0-indexed), over epochs."""
        order: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
        for number in range(first, first + count):
            epoch, index = divmod(number, self.steps_per_epoch)
            if order is None or index == 0:
                order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
            chosen = [
                self.examples[i]
                for i in order[index * self.step_size : (index + 1) * self.step_size]
            ]
            yield Step(
                tuple(
                    tuple(chosen[start : start + self.batch_size])
                    for start in range(0, len(chosen), self.batch_size)
                )
            )


def schedule_hash(steps: Iterable[Step]) -> str:
    """Return a hash of the token ids and the order of a schedule."""
    digest = sha256()
    for step in steps:
        for batch in step.micro_batches:
            for example in batch:
                digest.update(np.array(example.source, np.int32).tobytes() + b"s")
                digest.update(np.array(example.target, np.int32).tobytes() + b"t")
            digest.update(b"b")
        digest.update(b"o")
    return digest.hexdigest()


def prefetch(
    steps: Iterable[Step],
    collate: Callable[[Sequence[Example]], Batch],
    share: Callable[[Step], Step] = lambda step: step,
) -> Iterator[tuple[Step, list[Batch]]]:
    """Yield each step with its batches, which another thread makes while the model computes.

    Args:
        steps: any.
        collate: makes a batch.
        share: the part of a step that batches are made of.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: deque[tuple[Step, Future[list[Batch]]]] = deque()
        try:
            for step in steps:
                made = thread.submit(lambda s: [collate(b) for b in share(s).micro_batches], step)
                pending.append((step, made))
                if len(pending) > _AHEAD:
                    ready, batches = pending.popleft()
                    yield ready, batches.result()
            while pending:
                ready, batches = pending.popleft()
                yield ready, batches.result()
        finally:
            thread.shutdown(cancel_futures=True)
