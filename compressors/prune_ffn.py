"""Narrower feed-forward layers: whole neurons are dropped before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness import STACKS, Compressor, Options, Stack, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone, Context

Criterion = Literal["activation", "taylor", "weight"]


class NeuronPruningOptions(Options):
    """Options of ``prune_ffn``."""

    keep: float = Field(0.5, gt=0, le=1)
    """Share of the neurons that every layer keeps."""
    by: Criterion = "activation"
    """Neurons to keep: activation keeps those that add most to the layer's output on training
    examples, taylor those whose removal changes the loss most by its gradient, weight those with
    the largest outgoing weights."""
    examples: int = Field(64, ge=1, le=512)
    """Number of training examples to look at."""


class NeuronPruning(Compressor[NeuronPruningOptions]):
    """Drops as many hidden neurons of all feed-forward layers, and trains the rest."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = NeuronPruningOptions

    def __init__(self, name: str, options: NeuronPruningOptions) -> None:
        super().__init__(name, options)
        if options.by != "weight":
            self.needs = frozenset({"data"})  # type: ignore[misc]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Drop neurons in place."""
        from compressors.calibrated import by_layer

        if self.options.keep == 1:
            return model
        layers: dict[Stack, list[Any]] = by_layer(model, backbone, "ffn.out")
        width = {stack: layers[stack][0].in_features for stack in STACKS}
        number = {stack: max(1, round(self.options.keep * width[stack])) for stack in STACKS}
        if context.skeleton:
            kept = {s: [list(range(number[s]))] * len(layers[s]) for s in STACKS}
        else:
            by_data = self.options.by != "weight"
            batches = context.calibration(self.options.examples) if by_data else []
            scores = neuron_scores(self.options.by, model, layers, batches)
            kept = {s: [largest(score, number[s]) for score in scores[s]] for s in STACKS}
        for stack in STACKS:
            backbone.keep_neurons(model, stack, kept[stack])
        return model


def neuron_scores(
    by: Criterion,
    model: PreTrainedModel,
    layers: dict[Stack, list[Any]],
    batches: Sequence[BatchEncoding],
) -> dict[Stack, list[Tensor]]:
    """Return a score of each neuron of each layer; the lowest are dropped.

    ``activation`` is the norm of what a neuron adds to the layer's output over all tokens: the
    norm of its activations times the norm of its outgoing weights (for single weights, Sun et al.
    2024). ``taylor`` is its activation times the gradient of the loss, without sign, summed over
    tokens (Molchanov et al. 2017).

    Args:
        by: the criterion.
        model: the model.
        layers: the second linear layer of each feed-forward layer.
        batches: calibration examples; none for ``weight``.
    """
    import torch

    from compressors.calibrated import evaluating, inputs_of

    outgoing = {
        s: [layer.weight.detach().double().norm(dim=0) for layer in layers[s]] for s in layers
    }
    if by == "weight":
        return outgoing
    taylor = by == "taylor"
    sums = {s: [torch.zeros_like(norms) for norms in outgoing[s]] for s in layers}
    with evaluating(model, gradients=taylor):
        for batch in batches:
            for stack, states in inputs_of(model, layers, batch, gradients=taylor).items():
                for total, state in zip(sums[stack], states, strict=True):
                    values = state.values.double()
                    if state.gradients is None:
                        total.add_(values.square().sum(0))
                    else:
                        total.add_((values * state.gradients).abs().sum(0))
    if taylor:
        return sums
    return {
        s: [total.sqrt() * norms for total, norms in zip(sums[s], outgoing[s], strict=True)]
        for s in layers
    }


def largest(scores: Tensor, number: int) -> list[int]:
    """Return the positions of the largest scores, increasing; of equal ones the first."""
    order: list[int] = scores.argsort(descending=True, stable=True)[:number].tolist()
    return sorted(order)
