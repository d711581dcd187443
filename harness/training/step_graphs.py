"""Optimizer steps as CUDA graphs: one launch in place of thousands.

A step of eight examples has thousands of small kernels, and on a recent GPU the CPU takes longer
to launch them than the GPU to run them. A CUDA graph records the kernels of a whole step (forward
and backward pass, clipping, optimizer) with the addresses of all tensors, and launches them at
once. It is recorded for each shape of batch when the shape occurs for the second time.

All graphs share their memory: no two of them run at the same time, and what a graph leaves (its
loss) is copied at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.errors import first_line
from harness.model.recorder import Record, Recording
from harness.training.engines.padded import Batch
from harness.training.engines.shapes import BatchShape

TakeStep = Callable[[Batch, Tensor], Tensor]
"""Takes a whole step on a batch; the second argument holds the target tokens, as float32."""


class StepGraphs:
    """The recorded steps of a training.

    Args:
        take: takes a whole step without waiting for the device, and returns its loss.
        optimizer: AdamW, which the steps update the weights with.
        device: the device of the model.
        record: records a function.

    Attributes:
        obstacle: the reason why no step is recorded any more; None if there is none.
        replays: number of steps that were replayed.
    """

    def __init__(
        self, take: TakeStep, optimizer: Optimizer, device: torch.device, record: Record
    ) -> None:
        self.obstacle: str | None = None
        self.replays = 0
        self._take = take
        self._optimizer = optimizer
        self._device = device
        self._record = record
        self._seen: set[BatchShape] = set()
        self._steps: dict[BatchShape, _RecordedStep] = {}

    @property
    def recorded(self) -> int:
        """Number of recorded steps."""
        return len(self._steps)

    def forget(self) -> None:
        """Discard all recorded steps, and the memory that they hold."""
        self._seen.clear()
        self._steps.clear()

    def step(self, batch: Batch, shape: BatchShape, target_tokens: int) -> Tensor | None:
        """Take a step as a graph and return its loss; None if it must be taken in another way.

        The first step of each shape must be, because it loads kernels and allocates what stays.

        Args:
            batch: a batch on the CPU that is filled up to the shape.
            shape: the shape of the batch.
            target_tokens: see ``Trainer.backward``.
        """
        if self.obstacle is not None:
            return None
        recorded = self._steps.get(shape)
        if recorded is None:
            if shape not in self._seen:
                self._seen.add(shape)
                return None
            recorded = self._new(batch)
            if recorded is None:
                return None
            self._steps[shape] = recorded
        self.replays += 1
        return recorded(batch, target_tokens)

    def rehearse(self, function: Callable[[], None]) -> Recording:
        """Record a function as steps are recorded, and run it from the recording.

        Its tensors stay in memory as long as the recording.

        Raises:
            Exception: it cannot be recorded.
        """
        recording = self._record(function)
        recording.replay()
        return recording

    def give_up(self, reason: str) -> None:
        """Record no step from now on, and discard the recorded ones."""
        self.obstacle = reason
        self.forget()

    def _new(self, batch: Batch) -> _RecordedStep | None:
        try:
            return _RecordedStep(self._take, self._optimizer, self._device, self._record, batch)
        except Exception as error:  # Kernels, drivers and libraries raise errors of any type.
            # A step that was not recorded did not run: the caller takes it.
            self.give_up(f"{type(error).__name__}: {first_line(error)}")
            self._optimizer.zero_grad()
            return None


class _RecordedStep:
    """One recorded step, and the tensors that it reads and writes."""

    def __init__(
        self,
        take: TakeStep,
        optimizer: Optimizer,
        device: torch.device,
        record: Record,
        batch: Batch,
    ) -> None:
        self._inputs = batch.to(device)
        self._optimizer = optimizer
        self._target_tokens = torch.ones((), device=device)
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._losses: list[Tensor] = []

        def step() -> None:
            with _rates_on_device(optimizer, self._rates):
                self._losses[:] = [take(self._inputs, self._target_tokens)]

        self._recording = record(step)

    def __call__(self, batch: Batch, target_tokens: int) -> Tensor:
        """Take the step on another batch of its shape and return the loss."""
        for name, tensor in batch.tensors.items():
            self._inputs.tensors[name].copy_(tensor, non_blocking=True)
        self._target_tokens.fill_(target_tokens)
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        self._recording.replay()
        (loss,) = self._losses
        return loss.clone()


@contextmanager
def _rates_on_device(optimizer: Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Let the optimizer read its learning rates from tensors in the context."""
    before = [(group["lr"], group.get("capturable")) for group in optimizer.param_groups]
    try:
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["lr"], group["capturable"] = rate, True
        yield
    finally:
        for (rate_before, capturable), group in zip(before, optimizer.param_groups, strict=True):
            group["lr"], group["capturable"] = rate_before, capturable
