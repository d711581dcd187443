"""A frozen encoder that reads the examples once, before training; the steps read its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from harness import clock
from harness.data.cache_folder import VARIABLE
from harness.data.examples import Example, Examples
from harness.data.stored_rows import (
    Arrays,
    Column,
    key_of,
    read_rows,
    rows_folder,
    write_rows,
)
from harness.errors import HarnessError
from harness.model.composition import compose
from harness.training.engines.packed import choose_engine
from harness.training.engines.padded import STATES
from harness.training.packing import resolve_packing
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import load_original, run_context

_TYPES: dict[str, type[np.generic]] = {"float16": np.float16, "float32": np.float32}
_COLUMN = "states"


def encoder_storage_notes(run: ResolvedRun, examples: Examples) -> list[str]:
    """Return notes on the disk space that the encoder's outputs take, and on what is lost.

    Raises:
        HarnessError: no folder is named for them.
    """
    storage = run.recipe.encoder_storage
    if storage is None:
        return []
    _folder(run, [])
    tokens = int(examples.sources.lengths.sum(dtype=np.int64))
    size = tokens * _column(run).row_bytes
    return [
        f"The encoder's outputs of {tokens:,} source tokens take {size / 1e6:,.1f} MB in "
        f"${VARIABLE}; they are computed once."
    ]


def stored_notes(run: ResolvedRun) -> list[str]:
    """Return notes for the report of a training on what was computed once, before it began."""
    notes, teacher, storage = [], run.recipe.teacher, run.recipe.encoder_storage
    if teacher is not None and teacher.beams is not None:
        notes.append(
            f"The targets were predicted by the teacher with {teacher.beams} beams. Speed and "
            "memory were measured with the targets of the data."
        )
    if storage is not None:
        notes.append(
            f"The encoder's outputs were computed once, without dropout, and stored in {storage}. "
            "Speed and memory are those of steps that read them."
        )
    return notes


def with_stored_encoder(
    run: ResolvedRun,
    examples: Examples,
    on_progress: Callable[[int], None] = lambda done: None,
    cache: Path | None = None,
) -> ResolvedRun:
    """Return the run with its encoder's outputs, computed now or stored by an earlier run.

    A run whose recipe stores none is returned as it is. Runs share what is stored if the weights of
    their encoders, the precision and the sources are equal, whatever else they train.

    Args:
        run: the run.
        examples: the training split.
        on_progress: is called with the number of examples that the encoder has read.
        cache: the folder that they are stored in; None takes that of ``$HARNESS_CACHE``.

    Raises:
        HarnessError: there is no place to store them, or float16 cannot hold them.
    """
    if run.recipe.encoder_storage is None:
        return run
    model = compose(load_original(run), run.backbone, run.recipe, run_context(run)).eval()
    folder = _folder(run, [_encoder_hash(model), examples.sources.sha256()], cache)
    if not folder.is_dir():
        sources = [example.source for example in examples]
        write_rows(
            folder,
            [key_of(source) for source in sources],
            [len(source) for source in sources],
            [_column(run)],
            _computed(run, model, examples, on_progress),
        )
    return replace(run, encoded=read_rows(folder, [_COLUMN], "The encoder's stored outputs"))


def encoder_rows(run: ResolvedRun) -> Callable[[Sequence[Example]], dict[str, Tensor]] | None:
    """Return the function that adds stored outputs to a batch; None if the recipe stores none.

    Where nothing was computed, as in a measurement, all outputs are 0. A step with them costs the
    same.
    """
    if run.recipe.encoder_storage is None:
        return None
    column = _column(run)

    def rows(examples: Sequence[Example]) -> dict[str, Tensor]:
        wanted = [(key_of(example.source), len(example.source)) for example in examples]
        if run.encoded is None:
            shape = sum(count for _, count in wanted), column.width
            return {STATES: torch.from_numpy(np.zeros(shape, column.dtype))}
        return {STATES: torch.from_numpy(run.encoded.rows(wanted)[_COLUMN])}

    return rows


def _column(run: ResolvedRun) -> Column:
    assert run.recipe.encoder_storage
    width: int = run.backbone.config().hidden_size
    return Column(_COLUMN, width, _TYPES[run.recipe.encoder_storage])


def _folder(run: ResolvedRun, identity: Sequence[object], cache: Path | None = None) -> Path:
    missing = HarnessError(
        "The encoder's outputs need a folder to be stored in.",
        f"Name one on this machine: export {VARIABLE}=FOLDER",
    )
    machine = run.recipe.encoder_storage, run.dtype, run.device.type
    versions = torch.__version__, transformers.__version__
    return rows_folder("encoders", [*identity, *machine, *versions], missing, cache)


def _encoder_hash(model: PreTrainedModel) -> str:
    """Return a hash of an encoder: its modules, its configuration and its values."""
    encoder = model.get_encoder()
    settings = encoder.config.to_dict()
    for name in ("_name_or_path", "name_or_path"):
        settings.pop(name, None)
    digest = sha256(f"{encoder}{json.dumps(settings, sort_keys=True, default=str)}".encode())
    for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]:
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _computed(
    run: ResolvedRun,
    model: PreTrainedModel,
    examples: Examples,
    on_progress: Callable[[int], None],
) -> Iterator[tuple[Arrays, float]]:
    """Yield the encoder's outputs, some examples at a time."""
    began = clock.seconds()
    model = model.to(run.device)
    engine = choose_engine(
        model,
        run.backbone,
        device=run.device,
        dtype=run.dtype,
        pad_token_id=model.config.pad_token_id,
        packing=resolve_packing(run.spec.train.engine, run.recipe),
    )
    stored_as: torch.dtype = getattr(torch, str(run.recipe.encoder_storage))
    size = run.spec.train.batch_size
    try:
        for start in range(0, len(examples), size):
            batch = engine.collate(examples[start : start + size]).to(run.device)
            states = engine.encode(model, batch).to(stored_as).cpu()
            if not states.isfinite().all():
                raise HarnessError(
                    f"The encoder's outputs are larger than {run.recipe.encoder_storage} can hold.",
                    "Store them in float32: cache_encoder:dtype=float32",
                )
            on_progress(min(start + size, len(examples)))
            yield {_COLUMN: states.numpy()}, clock.seconds() - began
    finally:
        engine.unpatch(model)  # What refers to the model would keep it in memory.
