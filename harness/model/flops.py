"""Floating-point operations of a training step, counted without doing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.composition import compose

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
        forward: of the forward pass.
        backward: of the backward pass.
    """

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


def flop_limit(backbone: Backbone, recipe: Recipe, source_tokens: int, target_tokens: int) -> float:
    """Return what a recipe's relative speed would be if only matrix products took time.

    Args:
        backbone: the backbone.
        recipe: composed on a skeleton.
        source_tokens: mean length of the sources.
        target_tokens: mean length of the targets.
    """
    full = training_flops(backbone.skeleton(), source_tokens, target_tokens)
    compressed = compose(backbone.skeleton(), backbone, recipe)
    return full.total / training_flops(compressed, source_tokens, target_tokens).total


def training_flops(
    model: PreTrainedModel, source_tokens: int, target_tokens: int, batch_size: int = 1
) -> StepFlops:
    """Count the operations of one training step by tracing it on the meta device.

    Autograd itself decides what the backward pass holds, so that frozen weights cost no weight
    gradient, nothing below the first trained weight costs a gradient, and whatever a compressor
    adds is counted, third-party ones included.

    Args:
        model: a composed skeleton, on the meta device.
        source_tokens: length of each source; there is no padding.
        target_tokens: length of each target.
        batch_size: sequences in the step.

    Raises:
        ValueError: the model holds real weights; the step would really be computed.
    """
    import torch

    from harness.model.host_draws import FixedHostDraws
    from harness.model.product_counter import ProductCounter

    if any(not parameter.is_meta for parameter in model.parameters()):
        raise ValueError("FLOPs are counted on a skeleton: backbone.skeleton(), then compose().")
    with torch.device("meta"):
        sources = torch.zeros(batch_size, source_tokens, dtype=torch.long)
        targets = torch.zeros(batch_size, target_tokens, dtype=torch.long)
        # A ready 4-D mask: from anything less transformers would build one by looking at values,
        # and meta tensors have none.
        causal = torch.zeros(batch_size, 1, target_tokens, target_tokens)
    with FixedHostDraws(), ProductCounter() as counter:
        output = model(
            input_ids=sources, labels=targets, decoder_attention_mask=causal, use_cache=False
        )
        forward = counter.flops
        output.loss.backward()
    model.zero_grad(set_to_none=True)
    return StepFlops(forward, counter.flops - forward)
