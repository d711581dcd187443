"""Checks of what becomes of a trained model: generation, merging, and adapters for PEFT."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from harness.errors import HarnessError
from harness.evaluation.decoding import searching_ids
from harness.export.stock_model import require_stock, save_model
from harness.spec.decoding import DecodingSettings
from harness.testing.adapters import reloaded_adapter
from harness.testing.families import IDS
from harness.testing.result import CheckFailedError, DoesNotApplyError
from harness.testing.runner import Check
from harness.testing.subject import Subject, largest_difference, logits, perturb


def cached(subject: Subject) -> float:
    """Count tokens that differ when beam search keeps no cache."""
    model = subject.perturbed()
    search = {"min_new_tokens": 6, "max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    one, other = (
        torch.as_tensor(model.generate(input_ids=IDS, use_cache=use, **search))
        for use in (True, False)
    )
    return float((one != other).sum()) if one.shape == other.shape else float("inf")


def shared(subject: Subject) -> float:
    """Count tokens that differ between the search with shared beams and transformers' search."""
    model = subject.model()
    allowed = subject.backbone.shared_beams and subject.recipe().shares_beams
    if not allowed or type(model) is not type(subject.backbone.skeleton()):
        raise DoesNotApplyError("its beams share no cache; transformers' search is used")
    perturb(model)
    settings = DecodingSettings(beams=2, max_new_tokens=6, min_new_tokens=3, no_repeat_ngram=0)
    sources = IDS.tolist()
    found = []
    for shares in (True, False):
        with searching_ids(model, shared_beams=shares, dtype=torch.float32) as search:
            found.append(_without_padding(search(sources, settings), model.config.eos_token_id))
    pairs = [pair for rows in zip(*found, strict=True) for pair in zip_longest(*rows)]
    return float(sum(one != other for one, other in pairs))


def _without_padding(ids: torch.Tensor, end: int) -> list[list[int]]:
    """Return each row up to its end token; the searches fill the rest differently."""
    rows: list[list[int]] = ids.tolist()
    # BART's start token is its end token.
    return [row[: row.index(end, 1) + 1] if end in row[1:] else row for row in rows]


def merged(subject: Subject) -> float:
    """Merge, save, and load with transformers alone."""
    model = subject.perturbed()
    before = logits(model)
    for compressor in reversed(subject.recipe().compressors):
        try:
            model = compressor.merge(model)
        except HarnessError as error:
            if subject.name not in error.message:
                raise CheckFailedError(
                    f"merge refuses without naming {subject.name}: {error.message}", "merge"
                ) from error
            raise DoesNotApplyError(error.message) from error
    try:
        require_stock(model, "The merged model", "")
    except HarnessError as error:
        raise CheckFailedError(
            f"{error.message} Merge what was added, or raise a HarnessError.", "merge"
        ) from error
    return max(
        largest_difference(before, logits(model)),
        largest_difference(before, logits(_reloaded(model, subject.folder / "merged"))),
    )


def _reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    save_model(model, str(folder), "float64")
    loaded: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64)
    return loaded


def exported(subject: Subject) -> float:
    """Export the adapter and load it with PEFT alone, on its base."""
    model = subject.model().double()
    try:
        loaded = reloaded_adapter(subject, model)
    except HarnessError as error:
        raise DoesNotApplyError(error.message) from error
    return largest_difference(logits(model), logits(loaded))


HANDING_OVER = [
    Check("generation is equal with and without a cache", "apply", cached, 0.0),
    Check("shared beams find what transformers' search finds", "apply", shared, 0.0),
    Check("the merged model is equal and reloads", "merge", merged, 1e-6),
    Check("the exported adapter is equal and reloads", "peft_config", exported, 1e-5),
]
