"""Checks that a model without adapters is one that stock transformers can load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel

from harness.errors import HarnessError, first_line
from harness.model.composition import compose

if TYPE_CHECKING:
    from harness.spec.decoding import DecodingSettings
    from harness.training.trained_run import TrainedRun


def merged_skeleton(run: TrainedRun) -> PreTrainedModel:
    """Return the merged model on the meta device."""
    return merge(run, compose(run.backbone.skeleton(), run.backbone, run.recipe))


def merge(run: TrainedRun, model: PreTrainedModel) -> PreTrainedModel:
    """Merge what the recipe added into plain layers; the passed model cannot be used afterwards."""
    for compressor in reversed(run.recipe.compressors):
        model = compressor.merge(model)
    return model


def stock_skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model that transformers builds from a model's configuration, without weights.

    Raises:
        HarnessError: transformers cannot build it.
    """
    try:
        with torch.device("meta"):
            return AutoModelForSeq2SeqLM.from_config(model.config)
    except Exception as error:  # The errors of unknown configurations are not documented.
        raise HarnessError(
            f"transformers cannot build a model from the configuration: {first_line(error)}.",
            "Models of a family that transformers lacks cannot be exported.",
        ) from error


def require_stock(model: PreTrainedModel, what: str, hint: str) -> None:
    """Check that a model built from the configuration has exactly the weights of this model.

    Args:
        model: a model without adapters.
        what: names the model in the message.
        hint: the remedy.

    Raises:
        HarnessError: weights are left over or missing.
    """
    stock = stock_skeleton(model)
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    extra, missing = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
    other = sorted(name for name in here.keys() & there.keys() if here[name] != there[name])
    problems = [
        f"{len(names):,} weights {which} ({', '.join(names[:2])}{', ...' * (len(names) > 2)})"
        for names, which in (
            (extra, "have no place in it"),
            (missing, "are missing"),
            (other, "have another shape"),
        )
        if names
    ]
    if problems:
        raise HarnessError(
            f"{what} is not a {type(stock).__name__} of transformers: {'; '.join(problems)}.",
            hint,
        )


def require_mergeable(model: PreTrainedModel, recipe: str) -> None:
    """Check that a merged model is a plain one.

    Raises:
        HarnessError: it is not.
    """
    require_stock(
        model,
        f"The recipe {recipe} cannot be merged: the result",
        "Export the adapter, if the recipe has one: --adapter",
    )


def save_model(model: PreTrainedModel, folder: str, dtype: str) -> None:
    """Write configuration and weights, tied weights once."""
    from harness.backbones.hub import quietly

    with quietly():
        model.to(getattr(torch, dtype)).save_pretrained(folder)


def generation_settings(own: GenerationConfig, settings: DecodingSettings) -> GenerationConfig:
    """Return the settings of the search, with a model's own special tokens."""
    # Greedy search uses neither, and transformers warns of settings that it ignores.
    beam_settings = {
        "early_stopping": settings.early_stopping,
        "length_penalty": settings.length_penalty,
    }
    special = {name: getattr(own, name) for name in own.to_dict() if name.endswith("token_id")}
    return GenerationConfig(
        num_beams=settings.beams,
        max_new_tokens=settings.max_new_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram,
        min_new_tokens=settings.min_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        do_sample=False,
        **(beam_settings if settings.beams > 1 else {}),
        **special,
    )
