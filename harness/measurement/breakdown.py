"""Where a step's time and memory go: why a recipe is faster or smaller, or is not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import torch

from harness.measurement.ledger import Ledger, StorageOf
from harness.reporting.report import MemoryParts, TimeParts
from harness.training.engine import Batch
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


def memory_parts(
    trainee: Trainee,
    batches: Sequence[Batch],
    storage_of: StorageOf = torch.Tensor.untyped_storage,
) -> MemoryParts:
    """Take a step, once the optimizer's state exists, and say what tensors are for at its peak.

    Args:
        trainee: real, or of shapes alone.
        batches: of one optimizer step, real and on the CPU.
        storage_of: see ``Ledger``.
    """
    states = trainee.optimizer.state.values()
    held = {
        "weights": [*trainee.model.parameters(), *trainee.model.buffers()],
        "optimizer": [v for state in states for v in state.values() if torch.is_tensor(v)],
    }
    ledger = Ledger(held, trainee.model.get_output_embeddings().weight.shape[0], storage_of)

    def passed(part: str) -> None:
        ledger.part = "other" if part == "forward" else "activations"

    with ledger:
        trainee.backward(batches, sum(b.target_tokens for b in batches), passed)
        ledger.are_gradients([p.grad for p in trainee.trained.values() if p.grad is not None])
        ledger.part = "other"
        trainee.update()
    return MemoryParts(**ledger.peak())
