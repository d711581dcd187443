"""Counts the floating-point operations of a training step without computing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.model.composition import compose
from harness.model.contexts import skeleton_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.backbone import Backbone
    from harness.api.recipe import Recipe


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations of the matrix products of one training step.

    A multiplication and an addition are two operations. Everything that is not a matrix product
    (norms, activations, softmax, the optimizer) is left out.

    Attributes:
        forward: operations of the forward pass.
        backward: operations of the backward pass.
    """

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Operations of both passes."""
        return self.forward + self.backward


def flop_limit(
    backbone: Backbone,
    recipe: Recipe,
    source_tokens: int,
    target_tokens: int,
    seed: int = 0,
    teacher: PreTrainedModel | None = None,
) -> float:
    """Return a recipe's speed relative to full fine-tuning if only matrix products took time.

    It is the quotient of full fine-tuning's and the recipe's floating-point operations.

    Args:
        backbone: the backbone of both.
        recipe: the recipe, which is applied to a skeleton of the backbone.
        source_tokens: mean length of the sources in tokens.
        target_tokens: mean length of the targets in tokens.
        seed: the seed of the run, for compressors that draw what they change.
        teacher: see ``recipe_flops``.
    """
    full = training_flops(backbone.skeleton(), source_tokens, target_tokens).total
    context = skeleton_context(backbone, seed)
    compressed = compose(backbone.skeleton(), backbone, recipe, context)
    lengths = source_tokens, target_tokens
    return full / recipe_flops(compressed, backbone, recipe, *lengths, teacher)


def recipe_flops(
    model: PreTrainedModel,
    backbone: Backbone,
    recipe: Recipe,
    source_tokens: int,
    target_tokens: int,
    teacher: PreTrainedModel | None = None,
) -> int:
    """Count the operations of a training step of a recipe: the model, a teacher and other costs.

    Args:
        model: the composed skeleton.
        backbone: the backbone that it came from.
        recipe: the recipe that was applied.
        source_tokens: length of each source in tokens.
        target_tokens: length of each target in tokens.
        teacher: the skeleton of the teacher; None if it is the original model.
    """
    lengths = source_tokens, target_tokens
    flops = training_flops(
        model, *lengths, encoder_is_stored=recipe.encoder_storage is not None
    ).total
    if recipe.taught_in_steps:
        flops += training_flops(teacher or backbone.skeleton(), *lengths).forward
    return flops + sum(c.cost(model, *lengths).flops for c in recipe.compressors)


def training_flops(
    model: PreTrainedModel,
    source_tokens: int,
    target_tokens: int,
    batch_size: int = 1,
    *,
    encoder_is_stored: bool = False,
) -> StepFlops:
    """Count the operations of one training step by tracing it on the meta device.

    Autograd itself determines the backward pass. Frozen weights therefore cost no weight gradient,
    layers below the first trained weight cost no gradient, and everything that a compressor adds is
    counted, also by third-party compressors.

    Args:
        model: a composed skeleton, on the meta device.
        source_tokens: length of each source in tokens; there is no padding.
        target_tokens: length of each target in tokens.
        batch_size: number of sequences in the step.
        encoder_is_stored: whether the step reads the encoder's outputs in place of computing them.

    Raises:
        ValueError: the model holds real weights, with which the step would be computed.
    """
    import torch

    from harness.model.host_draws import FixedHostDraws
    from harness.model.product_counter import ProductCounter

    if any(not parameter.is_meta for parameter in model.parameters()):
        raise ValueError("FLOPs are counted on a skeleton: backbone.skeleton(), then compose().")
    with torch.device("meta"):
        sources = torch.zeros(batch_size, source_tokens, dtype=torch.long)
        targets = torch.zeros(batch_size, target_tokens, dtype=torch.long)
        # A 4-D mask, because transformers would build it from the values of a 2-D mask, and meta
        # tensors have no values.
        causal = torch.zeros(batch_size, 1, target_tokens, target_tokens)
        given: dict[str, Any] = {"input_ids": sources}
        if encoder_is_stored:
            width = model.config.hidden_size
            given = {"encoder_outputs": (torch.zeros(batch_size, source_tokens, width),)}
    with FixedHostDraws(), ProductCounter() as counter:
        output = model(**given, labels=targets, decoder_attention_mask=causal, use_cache=False)
        forward = counter.flops
        output.loss.backward()
    model.zero_grad(set_to_none=True)
    return StepFlops(forward, counter.flops - forward)
