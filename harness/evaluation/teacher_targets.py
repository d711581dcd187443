"""Targets that a teacher predicts: sequence-level distillation (Kim and Rush 2016).

The teacher predicts each training source once, before training. Its predictions are as confidential
as the data, so they are stored where token ids are: in the folder that ``$HARNESS_CACHE`` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from harness import clock
from harness.api.teacher import ORIGINAL
from harness.data.cache_folder import VARIABLE, create_private, made_once, unusable
from harness.data.examples import Examples, Tokens
from harness.data.stored_rows import rows_folder
from harness.data.token_file import map_tokens, write_tokens
from harness.data.tokenizing import CHUNK, TokenizedRows
from harness.errors import HarnessError
from harness.evaluation.decoding import IdSearch, batches, searching_ids
from harness.spec.decoding import DecodingSettings
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import run_context
from harness.training.teacher_model import TeacherModel, find_teacher

_FILE, _COUNTS = "tokens.arrow", "counts.json"


@dataclass(frozen=True)
class TaughtExamples:
    """Training examples whose targets a teacher predicted.

    Attributes:
        examples: the sources of the training split, each with the teacher's prediction.
        seconds: time that the teacher took to predict them.
    """

    examples: Examples
    seconds: float


def target_notes(run: ResolvedRun, examples: Examples) -> list[str]:
    """Return a note on the targets that a teacher predicts; none if it predicts none.

    Raises:
        HarnessError: no folder is named for them.
    """
    teacher = run.recipe.teacher
    if teacher is None or teacher.beams is None:
        return []
    _folder([])
    tokens = int(examples.sources.lengths.sum(dtype=np.int64))
    most = 4 * (tokens + len(examples) * examples.targets.longest)
    return [
        f"The teacher predicts {len(examples):,} sources with {teacher.beams} beams, once, before "
        f"training; its predictions replace the targets. They take up to {most / 1e6:,.1f} MB in "
        f"${VARIABLE}. Speed and memory are measured with the targets of the data."
    ]


def taught_examples(
    run: ResolvedRun, examples: Examples, on_progress: Callable[[int], None] = lambda done: None
) -> TaughtExamples | None:
    """Return the examples with a teacher's predictions, made now or by an earlier run.

    The search is that of the test split, with the teacher's number of beams. No prediction is
    longer than the longest target of the data, so that the memory estimate holds.

    Args:
        run: the run.
        examples: the training split.
        on_progress: is called with the number of sources that were predicted.

    Returns:
        None if the recipe's teacher predicts no targets.

    Raises:
        HarnessError: there is no place to store them, or what is stored is damaged.
    """
    teacher = run.recipe.teacher
    if teacher is None or teacher.beams is None:
        return None
    longest = examples.targets.longest
    settings = run.spec.test.of_search()
    settings = settings.model_copy(
        update={
            "beams": teacher.beams,
            "max_new_tokens": longest,
            "min_new_tokens": min(settings.min_new_tokens, longest),
        }
    )
    model = find_teacher(run.recipe)
    folder = _folder(
        [
            model.version() if model else (run.backbone.version(), run.spec.weights, run.spec.seed),
            examples.sources.sha256(),
            settings.model_copy(update={"batch_size": 1}).model_dump_json(),
            run.dtype,
            run.device.type,
            torch.__version__,
            transformers.__version__,
        ]
    )
    if not folder.is_dir():
        with made_once(folder) as work:
            if work is not None:
                began = clock.seconds()
                write_tokens(work / _FILE, _predicted(run, examples, settings, on_progress))
                with create_private(work / _COUNTS) as file:
                    file.write(json.dumps({"seconds": clock.seconds() - began}).encode())
    try:
        seconds = float(json.loads((folder / _COUNTS).read_text())["seconds"])
        return TaughtExamples(map_tokens(folder / _FILE).examples, seconds)
    # Arrow's own errors are ValueErrors or OSErrors.
    except (OSError, ValueError, KeyError) as error:
        raise unusable(folder, error) from error


def _folder(identity: Sequence[object]) -> Path:
    missing = HarnessError(
        "A teacher's predictions need a folder to be stored in.",
        f"Name one on this machine: export {VARIABLE}=FOLDER. Or leave out targets=teacher.",
    )
    return rows_folder("predictions", identity, missing)


def _predicted(
    run: ResolvedRun,
    examples: Examples,
    settings: DecodingSettings,
    on_progress: Callable[[int], None],
) -> Iterator[TokenizedRows]:
    """Yield the examples with the teacher's predictions, ``CHUNK`` at a time."""
    described = find_teacher(run.recipe) or TeacherModel(ORIGINAL, run.backbone)
    model = run_context(run).teacher().to(run.device)
    shared = described.backbone.shared_beams
    with searching_ids(model, shared_beams=shared, dtype=run.dtype) as search:
        for start in range(0, len(examples), CHUNK):
            sources = examples.sources[start : start + CHUNK]
            targets = _targets(search, sources, settings, model.config.eos_token_id)
            on_progress(start + len(sources))
            short = np.zeros(len(sources), np.bool_)
            yield TokenizedRows(Tokens.of(sources), Tokens.of(targets), short, short)


def _targets(
    search: IdSearch, sources: Sequence[Sequence[int]], settings: DecodingSettings, end: int
) -> list[list[int]]:
    """Return the predictions of some sources, each with one end token and without the start."""
    found: dict[int, list[int]] = {}
    for batch in batches(sources, settings.batch_size, {}):
        rows = search([sources[i] for i in batch], settings).tolist()
        for index, (_, *ids) in zip(batch, rows, strict=True):
            cut = ids.index(end) if end in ids else settings.max_new_tokens - 1
            found[index] = [*ids[:cut], end]
    return [found[index] for index in range(len(sources))]
