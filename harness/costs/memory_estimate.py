"""Estimate of a recipe's peak memory: runs its training step on shapes, before loading anything."""

from __future__ import annotations

import gc
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS
from harness.costs.shape_tensors import ShapesOnly, storage_of_shape
from harness.errors import HarnessError, first_line
from harness.measurement.breakdown import track_step
from harness.measurement.memory import resident, trim_heap
from harness.measurement.tensor_tracker import TensorTracker
from harness.model.composition import count_parameters
from harness.records.measurements import MemoryParts
from harness.records.profile import MemoryEstimate
from harness.records.report import LayersKept
from harness.training.build import build_trainer, parameters_of
from harness.training.resolved_run import ResolvedRun
from harness.training.schedule import Step
from harness.training.teacher_model import teacher_skeleton
from harness.training.trainer import Trainer


def try_to_estimate(
    run: ResolvedRun, model: PreTrainedModel, longest: Step
) -> tuple[MemoryEstimate | None, str | None]:
    """Return the memory estimate, or None and the reason; see ``estimate_memory``."""
    try:
        return estimate_memory(run, model, longest), None
    except HarnessError:
        raise
    except Exception as error:
        # A third-party compressor may do what only real tensors allow.
        return None, f"{type(error).__name__}: {first_line(error)}"


def estimate_memory(run: ResolvedRun, model: PreTrainedModel, longest: Step) -> MemoryEstimate:
    """Compute the peak over a step with the code that trains: its engine and its optimizer.

    Everything that a compressor adds or changes is counted, also by a third-party compressor. It
    must not read the values of tensors.

    Args:
        run: the run to estimate.
        model: the backbone's skeleton after ``compose``; it cannot be used afterwards.
        longest: the step with the longest batch.

    Raises:
        Exception: the code needs values, or does not work on a skeleton.
    """
    lengths = longest.source_tokens // longest.examples, longest.target_tokens // longest.examples
    added = sum(c.cost(model, *lengths).bytes for c in run.recipe.compressors)
    trainer, tracker = track_step_of_shapes(run, model, longest)
    parts = MemoryParts(**tracker.peak())
    parts = parts.model_copy(update={"other": parts.other + added})
    process = None if run.device.type == "cuda" else process_bytes()
    return MemoryEstimate(
        peak_bytes=parts.total + (process or 0),
        tensor_bytes=parts.total,
        process_bytes=process,
        parts=parts,
        engine=trainer.engine.name,
        dtype=str(trainer.dtype).removeprefix("torch."),
        batch_size=max(map(len, longest.micro_batches)),
        source_tokens=longest.source_tokens,
        target_tokens=longest.target_tokens,
    )


def track_step_of_shapes(
    run: ResolvedRun, model: PreTrainedModel, longest: Step
) -> tuple[Trainer, TensorTracker]:
    """Take a step of a skeleton; return its trainer and the tracker of its tensors.

    See ``estimate_memory`` for the arguments.
    """
    parameters = parameters_of(model, count_parameters(model).total)
    # Which layers they are does not matter here, only their number.
    numbers = {s: [*range(1, len(run.backbone.layers(model, s)) + 1)] for s in STACKS}
    layers_kept = LayersKept(encoder=numbers["encoder"], decoder=numbers["decoder"])
    shapes = ShapesOnly(run.device)
    shapes.adopt(model)
    teacher = None
    if run.recipe.taught_in_steps:
        taught = teacher_skeleton(run.recipe) or run.backbone.skeleton()
        teacher = taught.eval().requires_grad_(False)
        shapes.adopt(teacher)
    with shapes:
        trainer = build_trainer(model, run, layers_kept, parameters, teacher)
    trainer.model.train()
    batches = [trainer.engine.collate(batch) for batch in longest.micro_batches]
    with shapes:
        # This creates the optimizer's state, as the first step does.
        for parameter in trainer.trained.values():
            parameter.grad = torch.empty_like(parameter)
        trainer.update()
        return trainer, track_step(trainer, batches, storage_of_shape)


@cache
def process_bytes() -> int:
    """Return the bytes that a training process on a CPU holds beside tensors.

    They are measured in this process, which loads the same libraries. After a step of a small model
    the kernels are loaded, the threads run and the libraries have their buffers. Call this function
    before anything large is read.
    """
    with torch.random.fork_rng(devices=[]):
        for low in (False, True):
            _train(torch.autocast("cpu", torch.bfloat16, enabled=low))
    gc.collect()
    trim_heap()
    return resident("VmRSS")


def _train(precision: torch.autocast) -> None:
    """Take a step of a model of half a megabyte."""
    model = nn.TransformerEncoderLayer(d_model=64, nhead=2, dim_feedforward=512, batch_first=True)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with precision:
        loss = model(torch.randn(4, 64, 64)).float().square().mean()
    loss.backward()
    optimizer.step()
