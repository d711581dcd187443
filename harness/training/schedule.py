"""The examples of each optimizer step, and batches prepared ahead of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from harness.data.examples import Example
from harness.training.engines.padded import Batch
from harness.training.engines.shapes import BatchSize, size_of

SAMPLED_STEPS = 512
"""Steps whose sizes stand for those of a whole training."""
_AHEAD = 2
"""Steps whose batches are prepared ahead of the one that is computed."""


@dataclass(frozen=True)
class Step:
    """The examples of one optimizer step, divided into micro-batches.

    Attributes:
        micro_batches: the examples of each micro-batch.
        fillers: number of micro-batches at the end whose loss does not count.
    """

    micro_batches: tuple[tuple[Example, ...], ...]
    fillers: int = 0

    @property
    def target_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(len(e.target) for batch in self.micro_batches for e in batch)

    @property
    def source_tokens(self) -> int:
        """Tokens of the sources, without padding."""
        return sum(len(e.source) for batch in self.micro_batches for e in batch)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(map(len, self.micro_batches))


class Schedule:
    """The order of the examples: each epoch is its own seeded permutation.

    Args:
        examples: the training split; not empty.
        batch_size: examples in a micro-batch.
        accumulation: micro-batches per optimizer step; an epoch's last step may be smaller.
        seed: seeds the permutations; equal seeds give equal orders.
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
        """Return the number of optimizer steps in ``epochs``, at most ``max_steps``."""
        # Rounded before ceil, because 1.1 x 10 is a little more than 11 in binary.
        planned = max(1, math.ceil(round(epochs * self.steps_per_epoch, 6)))
        return planned if max_steps is None else min(planned, max_steps)

    def steps_between_evaluations(self, epochs: float) -> int:
        """Return the number of optimizer steps in ``epochs``, at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def steps(self, first: int, count: int) -> Iterator[Step]:
        """Yield ``count`` optimizer steps from number ``first`` on (0-indexed), over epochs."""
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


def step_sizes(steps: Iterable[Step]) -> Iterator[BatchSize]:
    """Yield the sizes of the micro-batches of some steps."""
    return (size_of(batch) for step in steps for batch in step.micro_batches)


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
    """Yield each step with its batches, which another thread builds while the model computes.

    Args:
        steps: the optimizer steps, in order.
        collate: builds a batch from the examples of a micro-batch.
        share: returns this process's part of a step; batches are built from that part only.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: deque[tuple[Step, Future[list[Batch]]]] = deque()
        try:
            for step in steps:
                future = thread.submit(lambda s: _collated(share(s), collate), step)
                pending.append((step, future))
                if len(pending) > _AHEAD:
                    ready, batches = pending.popleft()
                    yield ready, batches.result()
            while pending:
                ready, batches = pending.popleft()
                yield ready, batches.result()
        finally:
            thread.shutdown(cancel_futures=True)


def _collated(step: Step, collate: Callable[[Sequence[Example]], Batch]) -> list[Batch]:
    batches = [collate(examples) for examples in step.micro_batches]
    first_filler = len(batches) - step.fillers
    return batches[:first_filler] + [replace(b, filler=True) for b in batches[first_filler:]]
