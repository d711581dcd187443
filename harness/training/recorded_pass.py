"""A recorded function of a batch and its target tokens, and learning rates that recordings read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.model.recorder import Record
from harness.training.engines.padded import Batch

TakeBatch = Callable[[Batch, Tensor], Tensor]
"""Computes a batch on the device and returns its loss; the second argument holds the target tokens
of the step, as float32."""


class RecordedPass:
    """A recorded function of a batch, and the tensors that it reads and writes.

    Args:
        take: the function; it must not wait for the device.
        device: the device of the model.
        record: records a function.
        batch: a batch on the CPU; further batches have its shape.
    """

    def __init__(self, take: TakeBatch, device: torch.device, record: Record, batch: Batch) -> None:
        # Copies, also on a CPU: each call writes another batch into them.
        inputs = {name: tensor.to(device, copy=True) for name, tensor in batch.tensors.items()}
        self._inputs = replace(batch, tensors=inputs)
        self._target_tokens = torch.ones((), device=device)
        self._losses: list[Tensor] = []

        def compute() -> None:
            self._losses[:] = [take(self._inputs, self._target_tokens)]

        self._recording = record(compute)

    def __call__(self, batch: Batch, target_tokens: int) -> Tensor:
        """Compute another batch of the shape and return the loss."""
        for name, tensor in batch.tensors.items():
            self._inputs.tensors[name].copy_(tensor, non_blocking=True)
        self._target_tokens.fill_(target_tokens)
        self._recording.replay()
        (loss,) = self._losses
        return loss.clone()


class DeviceRates:
    """The learning rates of an optimizer on the device, where recorded updates read them.

    Args:
        optimizer: AdamW.
        device: the device of the model.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]

    def refresh(self) -> None:
        """Copy the rates of the moment to the device."""
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the optimizer read its rates from the device in the context."""
        groups = self._optimizer.param_groups
        before = [(group["lr"], group.get("capturable")) for group in groups]
        try:
            for rate, group in zip(self._rates, groups, strict=True):
                group["lr"], group["capturable"] = rate, True
            yield
        finally:
            for (rate_before, capturable), group in zip(before, groups, strict=True):
                group["lr"], group["capturable"] = rate_before, capturable
