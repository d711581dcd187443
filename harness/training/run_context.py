"""The context of a run's compressors: the task's examples, and the weights that the run loads."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from transformers import BatchEncoding, PreTrainedModel, set_seed

from harness.api.context import Context
from harness.model.contexts import preserved_random_state, synthetic_batches
from harness.training.engines.padded import PaddedEngine
from harness.training.resolved_run import ResolvedRun
from harness.training.teacher_model import find_teacher

_SIZE = 8
"""Examples in a calibration batch. It is not the run's micro-batch, because a run that continues
with smaller ones must come to the same model."""


def run_context(run: ResolvedRun, *, drawn_on_device: bool = False) -> Context:
    """Return the context in which a run's recipe is applied to real weights.

    Args:
        run: the settings, the backbone, and the examples if there are any.
        drawn_on_device: see ``load_original``.
    """

    def load() -> PreTrainedModel:
        with preserved_random_state():
            return load_original(run, drawn_on_device=drawn_on_device)

    def load_teacher() -> PreTrainedModel:
        teacher = find_teacher(run.recipe)
        if teacher is None:
            return load()
        with preserved_random_state():
            return teacher.load()

    on_device = drawn_on_device and run.spec.weights == "random"
    place = run.device if on_device else torch.device("cpu")
    return Context(
        device=run.device,
        dtype=run.dtype,
        skeleton=False,
        seed=run.spec.seed,
        synthetic=run.calibration is None or run.calibration.synthetic,
        read_batches=lambda examples: _batches(run, examples, place),
        load_original=load,
        load_teacher=load_teacher,
        needs=run.recipe.needs,
    )


def load_original(run: ResolvedRun, *, drawn_on_device: bool = False) -> PreTrainedModel:
    """Seed all global generators, and load the run's backbone.

    Args:
        run: the settings and the backbone.
        drawn_on_device: draw random weights on the device, which takes a second instead of a
            minute for a large model. They differ from the weights that a CPU draws.
    """
    spec = run.spec
    set_seed(spec.seed)
    on_device = drawn_on_device and spec.weights == "random"
    with run.device if on_device else nullcontext():
        return run.backbone.load(spec.weights)


def _batches(run: ResolvedRun, count: int, device: torch.device) -> list[BatchEncoding]:
    if run.calibration is None:
        return synthetic_batches(run.backbone, count, device, run.spec.seed)
    examples = run.calibration.examples[:count]
    engine = PaddedEngine(run.backbone.config().pad_token_id, torch.float32, "cpu")
    return [
        BatchEncoding(engine.collate(examples[start : start + _SIZE]).tensors).to(device)
        for start in range(0, len(examples), _SIZE)
    ]
