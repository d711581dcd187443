"""A teacher that reads the examples once, before training, and is not needed in the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from harness import clock
from harness.api.teacher import ORIGINAL
from harness.data.examples import Example, Examples
from harness.data.top_logits import (
    read_top_logits,
    stored_bytes,
    teacher_folder,
    write_top_logits,
)
from harness.training.engines.outputs import TokenOutputs
from harness.training.engines.packed import choose_engine
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import run_context
from harness.training.teacher_model import TeacherModel, find_teacher

IDS, LOGITS = "teacher_ids", "teacher_logits"
"""Names of the stored rows among the tensors of a batch."""


def storage_notes(run: ResolvedRun, examples: Examples) -> list[str]:
    """Return a note on the disk space that the teacher's logits take.

    Raises:
        HarnessError: no folder is named for them.
    """
    teacher = run.recipe.teacher
    if teacher is None or teacher.top is None:
        return []
    teacher_folder([])
    top = min(teacher.top, run.backbone.config().vocab_size)
    tokens = int(examples.targets.lengths.sum(dtype=np.int64))
    size = stored_bytes(tokens, top)
    return [
        f"The teacher's {top:,} most likely tokens at each of {tokens:,} target "
        f"tokens take {size / 1e6:,.1f} MB in $HARNESS_CACHE; they are computed once."
    ]


def with_stored_teacher(
    run: ResolvedRun, examples: Examples, on_progress: Callable[[int], None] = lambda done: None
) -> ResolvedRun:
    """Return the run with its teacher's logits, computed now or stored by an earlier run.

    A run whose recipe stores none is returned as it is.

    Args:
        run: the run.
        examples: the training split.
        on_progress: is called with the number of examples that the teacher has read.
    """
    teacher = run.recipe.teacher
    if teacher is None or teacher.top is None:
        return run
    model = find_teacher(run.recipe)
    top = min(teacher.top, run.backbone.config().vocab_size)
    identity = (
        model.version() if model else (run.backbone.version(), run.spec.weights, run.spec.seed),
        _hash(examples),
        top,
        run.dtype,
        run.device.type,
        torch.__version__,
        transformers.__version__,
    )
    folder = teacher_folder(identity)
    if not folder.is_dir():
        write_top_logits(folder, examples, top, _computed(run, examples, top, on_progress))
    return replace(run, taught=read_top_logits(folder))


def batch_rows(run: ResolvedRun) -> Callable[[Sequence[Example]], dict[str, Tensor]] | None:
    """Return the function that adds stored logits to a batch; None if the recipe stores none.

    Where nothing was computed, as in a measurement, all logits are 0. A step with them costs the
    same.
    """
    teacher = run.recipe.teacher
    if teacher is None or teacher.top is None:
        return None
    top = min(teacher.top, run.backbone.config().vocab_size)

    def rows(examples: Sequence[Example]) -> dict[str, Tensor]:
        if run.taught is None:
            tokens = sum(len(example.target) for example in examples)
            ids = torch.arange(top, dtype=torch.int32).repeat(tokens, 1)
            return {IDS: ids, LOGITS: torch.zeros(tokens, top, dtype=torch.float16)}
        ids_, logits = run.taught.rows(examples)
        return {IDS: torch.from_numpy(ids_), LOGITS: torch.from_numpy(logits)}

    return rows


def _hash(examples: Examples) -> str:
    digest = sha256()
    for tokens in (examples.sources, examples.targets):
        for ids in tokens.pieces():
            digest.update(np.ascontiguousarray(ids).tobytes())
        digest.update(np.cumsum(tokens.lengths, dtype=np.int64).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _computed(
    run: ResolvedRun, examples: Examples, top: int, on_progress: Callable[[int], None]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float16], float]]:
    """Yield the teacher's most likely tokens, some examples at a time."""
    began = clock.seconds()
    described = find_teacher(run.recipe) or TeacherModel(ORIGINAL, run.backbone)
    model = run_context(run).teacher().to(run.device)
    engine = choose_engine(
        model,
        described.backbone,
        device=run.device,
        dtype=run.dtype,
        pad_token_id=model.config.pad_token_id,
        packing="auto",
    )
    size = run.spec.train.batch_size
    for start in range(0, len(examples), size):
        batch = engine.collate(examples[start : start + size]).to(run.device)
        outputs = engine.forward(model, batch)
        ids, logits = _top(outputs, top)
        on_progress(min(start + size, len(examples)))
        yield ids, logits, clock.seconds() - began


def _top(outputs: TokenOutputs, top: int) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    parts = [
        outputs.logits(slice(start, start + outputs.rows)).topk(top)
        for start in range(0, len(outputs.labels), outputs.rows)
    ]
    values = torch.cat([part.values - part.values[:, :1] for part in parts])
    ids = torch.cat([part.indices for part in parts])
    return ids.int().cpu().numpy(), values.half().cpu().numpy()
