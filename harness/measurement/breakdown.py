"""Where a step's time and memory go: why a recipe is faster or smaller, or is not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import torch

from harness.measurement.memory import allocated_by
from harness.reporting.profile import MemoryParts, TimeParts
from harness.training.schedule import Step, prefetch
from harness.training.trainee import Trainee


def time_parts(trainee: Trainee, steps: Sequence[Step]) -> TimeParts:
    """Time the parts of a step, over windows of their own.

    On CUDA the device is waited for after every part, which no speed window does: the parts add
    up to more than an undisturbed step, and only their shares say something.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    last = time.perf_counter()

    def passed(part: str) -> None:
        nonlocal last
        if trainee.device.type == "cuda":
            torch.cuda.synchronize(trainee.device)
        now = time.perf_counter()
        seconds[part] += now - last
        last = now

    for step, batches in prefetch(steps, trainee.engine.collate):
        passed("data")
        trainee.backward(batches, step.target_tokens, passed)
        trainee.update()
        passed("optimizer")
    count = len(steps)
    return TimeParts(**{part: seconds[part] / count for part in TimeParts.model_fields})


def memory_parts(trainee: Trainee, step: Step) -> MemoryParts:
    """Return the bytes of what lives in a step, once the optimizer's state exists."""
    weights = storage_bytes(_weights(trainee))
    ((_, batches),) = prefetch([step], trainee.engine.collate)
    first = batches[0].to(trainee.device)
    kept: list[torch.Tensor] = []
    activations = allocated_by(
        lambda: kept.append(trainee.engine.loss_sum(trainee.model, first)), trainee.device
    )
    trainee.accelerator.backward(kept.pop())
    gradients = storage_bytes([p.grad for p in trainee.trained.values() if p.grad is not None])
    trainee.optimizer.zero_grad()
    return MemoryParts(
        weights=weights,
        gradients=gradients,
        optimizer=storage_bytes(_optimizer_state(trainee)),
        activations=activations,
    )


def held_bytes(trainee: Trainee) -> int:
    """Return the bytes that live on between steps: weights, buffers, optimizer state."""
    return storage_bytes(_weights(trainee)) + storage_bytes(_optimizer_state(trainee))


def storage_bytes(tensors: Sequence[torch.Tensor]) -> int:
    """Return the bytes behind tensors, shared storages counted once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _weights(trainee: Trainee) -> list[torch.Tensor]:
    return [*trainee.model.parameters(), *trainee.model.buffers()]


def _optimizer_state(trainee: Trainee) -> list[torch.Tensor]:
    states = trainee.optimizer.state.values()
    return [value for state in states for value in state.values() if torch.is_tensor(value)]
