"""Whether what a run hands over behaves like what it trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from harness.api.backbone import Backbone
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.evaluation.decoding import computing_in
from harness.evaluation.weights import merged
from harness.model.composition import compose
from harness.records.report import MergeCheck
from harness.spec.run_spec import RunSpec
from harness.training.engines.padded import PaddedEngine


@torch.inference_mode()
def check_merge(
    model: PreTrainedModel,
    recipe: Recipe,
    examples: Sequence[Example],
    dtype: torch.dtype = torch.float32,
    load_float32: Callable[[], PreTrainedModel] | None = None,
) -> MergeCheck:
    """Fold the adapters into plain layers, and compare the logits before and after.

    Where the model was evaluated in another precision than float32, its logits as evaluated are
    also compared with those of the backbone in float32 with the trained weights: what a user gets
    who loads the saved weights.

    Args:
        model: the trained model; used up.
        recipe: what it was composed with.
        examples: a batch that fits in memory.
        dtype: what matrix products were computed in when the model was evaluated.
        load_float32: returns the backbone with the trained weights, nothing rounded.
    """
    model.eval()
    pad = model.config.pad_token_id
    engine = PaddedEngine(pad, torch.float32, model.device.type)
    batch = engine.collate(examples).to(model.device)

    def logits(of: PreTrainedModel) -> Tensor:
        found: Tensor = of(**batch.tensors).logits
        return found.float()

    float32_difference = None
    if dtype != torch.float32 and load_float32:
        with merged(model), computing_in(model, dtype):
            evaluated = logits(model)
        exact = logits(load_float32().to(model.device).eval())
        float32_difference = float((evaluated - exact).abs().max())
    adapted = logits(model)
    for compressor in reversed(recipe.compressors):
        model = compressor.merge(model)
    return MergeCheck(
        largest_logit_difference=float((adapted - logits(model)).abs().max()),
        float32_logit_difference=float32_difference,
    )


def load_trained(
    backbone: Backbone, recipe: Recipe, spec: RunSpec, trained: Mapping[str, Tensor]
) -> PreTrainedModel:
    """Load the backbone as published, apply the recipe, and put the trained weights in.

    Frozen weights are not rounded, unlike those of a model that was trained in bfloat16.
    """
    set_seed(spec.seed)
    model = compose(backbone.load(spec.weights), backbone, recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
    return model
