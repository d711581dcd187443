"""Fewer attention heads: whole heads are dropped before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness import Compressor, Options, Role, Stack, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone, Context

Criterion = Literal["taylor", "activation"]
_OUTPUTS: tuple[Role, Role] = ("self_attn.out", "cross_attn.out")


class HeadPruningOptions(Options):
    """Options of ``prune_heads``."""

    keep: float = Field(0.5, gt=0, le=1)
    """Share of the heads that every attention keeps."""
    by: Criterion = "taylor"
    """Heads to keep: taylor keeps those whose removal changes the loss most by its gradient,
    activation those that add most to the output on training examples."""
    examples: int = Field(32, ge=1, le=512)
    """Number of training examples to look at."""


class HeadPruning(Compressor[HeadPruningOptions]):
    """Drops as many heads of all attentions, and trains the rest."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = HeadPruningOptions
    needs = frozenset({"data"})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Drop heads in place; self-attentions of a stack keep the same ones."""
        from compressors.calibrated import by_layer

        if self.options.keep == 1:
            return model
        heads: int = model.config.num_attention_heads
        number = max(1, round(self.options.keep * heads))
        for role in _OUTPUTS:
            layers: dict[Stack, list[Any]] = by_layer(model, backbone, role)
            if context.skeleton:
                kept = {s: [list(range(number))] * len(layers[s]) for s in layers}
            else:
                batches = context.calibration(self.options.examples)
                scores = head_scores(self.options.by, model, layers, heads, batches)
                kept = {s: chosen_heads(scores[s], number, role) for s in layers}
            for stack, numbers in kept.items():
                backbone.keep_heads(model, stack, role, numbers)
        return model


def chosen_heads(scores: Sequence[Tensor], number: int, role: Role) -> list[list[int]]:
    """Return the heads of each layer to keep.

    The self-attentions of a stack keep the same heads, because T5's layers share a bias of each
    head. A layer's scores are divided by their norm before they are added up, so that every layer
    has the same weight (Michel et al. 2019).
    """
    import torch

    from compressors.prune_ffn import largest

    if role == "self_attn.out":
        total = torch.stack([score / score.norm().clamp_min(1e-300) for score in scores]).sum(0)
        return [largest(total, number)] * len(scores)
    return [largest(score, number) for score in scores]


def head_scores(
    by: Criterion,
    model: PreTrainedModel,
    layers: Mapping[Stack, Sequence[Any]],
    heads: int,
    batches: Sequence[BatchEncoding],
) -> dict[Stack, list[Tensor]]:
    """Return a score of each head of each layer; the lowest are dropped.

    ``taylor`` is the product of what a head computes and its gradient, without sign, summed over
    tokens (Michel et al. 2019). ``activation`` is the norm of what a head adds to the output of its
    attention over all tokens.

    Args:
        by: the criterion.
        model: the model.
        layers: the output projections of the attentions.
        heads: number of heads of each.
        batches: calibration examples.
    """
    import torch

    from compressors.calibrated import evaluating, inputs_of

    taylor = by == "taylor"
    sums = {s: [torch.zeros(heads).double().to(m.weight.device) for m in layers[s]] for s in layers}
    with evaluating(model, gradients=taylor):
        for batch in batches:
            for stack, states in inputs_of(model, layers, batch, gradients=taylor).items():
                for total, state, module in zip(sums[stack], states, layers[stack], strict=True):
                    values = state.values.double().unflatten(-1, (heads, -1))
                    if state.gradients is not None:
                        slopes = state.gradients.unflatten(-1, (heads, -1))
                        total.add_((values * slopes).sum(-1).abs().sum(0))
                    else:
                        weight = module.weight.detach().double().unflatten(-1, (heads, -1))
                        squares = torch.einsum("ohi,ohj->hij", weight, weight)
                        total.add_(torch.einsum("thi,hij,thj->h", values, squares, values))
    return {s: [total if taylor else total.sqrt() for total in sums[s]] for s in layers}
