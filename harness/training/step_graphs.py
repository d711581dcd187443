"""Optimizer steps as CUDA graphs: one launch in place of thousands.

A step of eight examples has thousands of small kernels, and on a recent GPU the CPU takes longer
to launch them than the GPU to run them. A CUDA graph records the kernels of a whole step (forward
and backward pass, clipping, optimizer) with the addresses of all tensors, and launches them at
once. It is recorded for each shape of batch when the shape occurs for the second time. Steps over
several micro-batches have a graph for each pass, see ``pass_graphs``.

All graphs share their memory: no two of them run at the same time, and what a graph leaves (its
loss) is copied at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.errors import first_line
from harness.model.recorder import Record, Recording
from harness.training.engines.padded import Batch
from harness.training.engines.shapes import BatchShape
from harness.training.pass_graphs import PassGraphs
from harness.training.recorded_pass import DeviceRates, RecordedPass, TakeBatch


class StepGraphs:
    """The recorded steps of a training.

    Args:
        take: takes a whole step without waiting for the device, and returns its loss.
        passes: records the parts of steps over several micro-batches.
        optimizer: AdamW, which the steps update the weights with.
        rates: its learning rates.
        device: the device of the model.
        record: records a function.

    Attributes:
        obstacle: the reason why no step is recorded any more; None if there is none.
        record: records a function.
        replays: number of steps that were replayed.
    """

    def __init__(
        self,
        take: TakeBatch,
        passes: PassGraphs,
        optimizer: Optimizer,
        rates: DeviceRates,
        device: torch.device,
        record: Record,
    ) -> None:
        self.obstacle: str | None = None
        self.replays = 0
        self._take = take
        self._passes = passes
        self._optimizer = optimizer
        self._rates = rates
        self._device = device
        self.record = record
        self._seen: set[BatchShape] = set()
        self._steps: dict[BatchShape, RecordedPass] = {}

    @property
    def recorded(self) -> int:
        """Number of recorded steps and passes."""
        return len(self._steps) + len(self._passes)

    def forget(self) -> None:
        """Discard all recorded steps, and the memory that they hold."""
        self._seen.clear()
        self._steps.clear()
        self._passes.forget()

    def step(self, batches: Sequence[Batch], target_tokens: int) -> Tensor | None:
        """Take a step from recordings and return its loss; None if it must be taken otherwise.

        The first pass of each shape must be, because it loads kernels and allocates what stays.

        Args:
            batches: the micro-batches of the step on the CPU. Each must be filled up to a shape.
            target_tokens: see ``Trainer.backward``.
        """
        shapes = {batch.shape for batch in batches}
        if self.obstacle is not None or None in shapes:
            return None
        known = {shape for shape in shapes if shape is not None}
        if unseen := known - self._seen:
            self._seen |= unseen
            return None
        if not self._make_ready(batches):
            return None
        self.replays += 1
        if len(batches) > 1:
            return self._passes.step(batches, target_tokens)
        self._rates.refresh()
        return self._steps[known.pop()](batches[0], target_tokens)

    def rehearse(self, function: Callable[[], None]) -> Recording:
        """Record a function as steps are recorded, and run it from the recording.

        Its tensors stay in memory as long as the recording.

        Raises:
            Exception: it cannot be recorded.
        """
        recording = self.record(function)
        recording.replay()
        return recording

    def give_up(self, reason: str) -> None:
        """Record no step from now on, and discard the recorded ones."""
        self.obstacle = reason
        self.forget()

    def _make_ready(self, batches: Sequence[Batch]) -> bool:
        """Record what a step lacks; return False if it cannot be recorded."""
        try:
            if len(batches) > 1:
                self._passes.record(batches)
            elif (shape := batches[0].shape) is not None and shape not in self._steps:
                self._steps[shape] = RecordedPass(
                    self._at_device_rates, self._device, self.record, batches[0]
                )
        except Exception as error:  # Kernels, drivers and libraries raise errors of any type.
            # A step that was not recorded did not run: the caller takes it.
            self.give_up(f"{type(error).__name__}: {first_line(error)}")
            self._optimizer.zero_grad()
            return False
        return True

    def _at_device_rates(self, batch: Batch, target_tokens: Tensor) -> Tensor:
        with self._rates.in_use():
            return self._take(batch, target_tokens)
