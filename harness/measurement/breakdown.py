"""Breakdown of a step's time and memory, which shows why a recipe is faster or smaller."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from harness import clock
from harness.measurement.tensor_tracker import StorageOf, TensorTracker
from harness.records.measurements import MemoryParts, TimeParts
from harness.training.engines.padded import Batch
from harness.training.schedule import Step, prefetch
from harness.training.trainer import Trainer


def time_parts(trainer: Trainer, steps: Sequence[Step]) -> TimeParts:
    """Time the parts of a step, in a window of their own.

    On CUDA an event in the device's queue records the end of each part. Nothing waits for the
    device between the parts, so the step is not disturbed.
    """
    marks = [("", _mark(trainer.device))]

    def on_pass(part: str) -> None:
        marks.append((part, _mark(trainer.device)))

    for step, batches in prefetch(steps, trainer.engine.collate):
        on_pass("data")
        trainer.backward(batches, step.target_tokens, on_pass)
        trainer.update()
        on_pass("optimizer")
    seconds: defaultdict[str, float] = defaultdict(float)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    for (_, began), (part, ended) in pairwise(marks):
        seconds[part] += _seconds_between(began, ended)
    count = len(steps)
    return TimeParts(**{part: seconds[part] / count for part in TimeParts.model_fields})


def _mark(device: torch.device) -> Any:
    """Return the time, or on CUDA an event that records the time when the device reaches it."""
    if device.type != "cuda":
        return clock.seconds()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds_between(began: Any, ended: Any) -> float:
    return float(ended - began if isinstance(began, float) else began.elapsed_time(ended) / 1000)


def memory_parts(
    trainer: Trainer,
    batches: Sequence[Batch],
    storage_of: StorageOf = torch.Tensor.untyped_storage,
) -> MemoryParts:
    """Take a training step and return its peak bytes by purpose; see ``track_step``."""
    return MemoryParts(**track_step(trainer, batches, storage_of).peak())


def track_step(
    trainer: Trainer,
    batches: Sequence[Batch],
    storage_of: StorageOf = torch.Tensor.untyped_storage,
) -> TensorTracker:
    """Take a training step and return the tracker of its tensors.

    Args:
        trainer: a trainer whose optimizer has its state; its tensors are real, or have no data.
        batches: the batches of one optimizer step, with data, on the CPU.
        storage_of: returns the storage behind a tensor; see ``TensorTracker``.
    """
    states = trainer.optimizer.state.values()
    held = {
        "weights": [*trainer.model.parameters(), *trainer.model.buffers()],
        "teacher": trainer.objective.teacher_tensors,
        "optimizer": [v for state in states for v in state.values() if torch.is_tensor(v)],
    }
    tracker = TensorTracker(held, trainer.model.get_output_embeddings().weight.shape[0], storage_of)

    def on_pass(part: str) -> None:
        tracker.part = "other" if part == "forward" else "activations"

    with tracker:
        trainer.backward(batches, sum(b.target_tokens for b in batches), on_pass)
        tracker.mark_gradients([p.grad for p in trainer.trained.values() if p.grad is not None])
        tracker.part = "other"
        trainer.update()
    return tracker
