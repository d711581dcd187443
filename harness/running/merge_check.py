"""Check that the merged model computes the same as the trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.errors import is_out_of_memory
from harness.evaluation.decoding import computing_in
from harness.evaluation.weights import merged
from harness.model.composition import change_structure, compose
from harness.records.report import MergeCheck, StructureChange
from harness.training.engines.padded import PaddedEngine
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import load_original, run_context


@torch.inference_mode()
def check_merge(model: PreTrainedModel, recipe: Recipe, examples: Sequence[Example]) -> MergeCheck:
    """Merge the adapters into plain layers, and compare the logits before and after.

    Args:
        model: the trained model; it cannot be used afterwards.
        recipe: the recipe that the model was composed with.
        examples: a batch that fits in memory.
    """
    before = _logits(model, examples)
    for compressor in reversed(recipe.compressors):
        model = compressor.merge(model)
    difference = (before - _logits(model, examples)).abs().max()
    return MergeCheck(largest_logit_difference=float(difference))


@torch.inference_mode()
def compare_with_float32(
    model: PreTrainedModel,
    examples: Sequence[Example],
    dtype: torch.dtype,
    load_float32: Callable[[], PreTrainedModel],
) -> tuple[float | None, str | None]:
    """Compare the logits of the evaluated model with those of the model in float32.

    The float32 model is the one that a user gets by loading the saved weights.

    Args:
        model: the trained model, which is not changed.
        examples: a batch that fits in memory.
        dtype: the data type of matrix products when the model was evaluated.
        load_float32: returns the backbone with the trained weights, without rounding.

    Returns:
        The largest difference, or None and the reason why there is none.
    """
    if dtype == torch.float32:
        return None, "the model was evaluated in float32"
    with merged(model), computing_in(model, dtype):
        evaluated = _logits(model, examples)
    try:
        exact = _logits(load_float32().to(model.device), examples)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, "a second copy of the model, in float32, did not fit into memory"
    return float((evaluated - exact).abs().max()), None


def _logits(model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """Return the logits of a batch in evaluation mode, as float32."""
    model.eval()
    engine = PaddedEngine(model.config.pad_token_id, torch.float32, model.device.type)
    batch = engine.collate(examples).to(model.device)
    logits: Tensor = model(**batch.tensors).logits
    return logits.float()


def load_trained(
    run: ResolvedRun, trained: Mapping[str, Tensor], changes: Sequence[StructureChange] = ()
) -> PreTrainedModel:
    """Load the published backbone, apply the recipe, and copy the trained weights into it.

    Changes of the structure during training are made again.

    Its frozen weights are exact; training in bfloat16 rounds them.
    """
    model = compose(load_original(run), run.backbone, run.recipe, run_context(run))
    with torch.no_grad():
        change_structure(model, run.backbone, run.recipe, changes)
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
    return model
