"""Layers to drop, chosen by what they do to calibration examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from compressors.calibrated import encode, evaluating, left_out, mean_loss, states_of
from harness import Stack

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone

Criterion = Literal["importance", "angular", "loss", "learned"]
Drops = Mapping[Stack, int]
"""Stack -> number of layers to drop."""


def layers_to_drop(
    criterion: Criterion,
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Sequence[BatchEncoding],
    drops: Drops,
    steps: int = 1,
) -> dict[Stack, list[int]]:
    """Return the layers of each stack to drop, 1-indexed and increasing.

    Args:
        criterion: importance drops the layers whose output is most like their input (Men et al.
            2024); angular the run of consecutive layers whose output is most like its input
            (Gromov et al. 2024); loss one layer after the other, always the one without which the
            loss is lowest; learned the layers whose gates close (Huang and Wang 2018).
        model: the model with all of its layers.
        backbone: finds the layers.
        batches: calibration examples.
        drops: the stacks to choose from, and the number of layers to drop in each.
        steps: optimizer steps of the gates.
    """
    if criterion == "learned":
        from compressors.learned_gates import gate_scores

        gates = gate_scores(model, backbone, batches, list(drops), steps)
        return {stack: _smallest(gates[stack], count) for stack, count in drops.items()}
    with evaluating(model):
        if criterion == "loss":
            return _greedily(model, backbone, batches, drops)
        if criterion == "angular":
            angles = _differences(model, backbone, batches, drops, _angle)
            return {
                stack: list(range(first, first + drops[stack]))
                for stack, values in angles.items()
                for first in [1 + values.index(min(values))]
            }
        changes = _differences(model, backbone, batches, dict.fromkeys(drops, 1), _change)
        return {stack: _smallest(changes[stack], count) for stack, count in drops.items()}


def _smallest(values: Sequence[float], count: int) -> list[int]:
    """Return the numbers, from 1 and increasing, of the smallest values."""
    return sorted(1 + i for i in sorted(range(len(values)), key=values.__getitem__)[:count])


def _change(cosine: Tensor) -> Tensor:
    return 1 - cosine


def _angle(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1, 1).arccos()


def _differences(
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Sequence[BatchEncoding],
    distances: Drops,
    difference: Callable[[Tensor], Tensor],
) -> dict[Stack, list[float]]:
    """Add up, over all tokens, the difference of states some layers apart, for each first layer."""
    import torch

    sums: dict[Stack, list[float]] = {}
    for batch in batches:
        states = states_of(model, backbone, batch)
        for stack, distance in distances.items():
            pairs = zip(states[stack], states[stack][distance:], strict=False)
            values = [
                float(difference(torch.cosine_similarity(a.double(), b.double(), dim=-1)).sum())
                for a, b in pairs
            ]
            before = sums.get(stack, [0.0] * len(values))
            sums[stack] = [a + b for a, b in zip(before, values, strict=True)]
    return sums


def _greedily(
    model: PreTrainedModel, backbone: Backbone, batches: Sequence[BatchEncoding], drops: Drops
) -> dict[Stack, list[int]]:
    """Drop one layer after the other: of all stacks, the one without which the loss is lowest."""
    dropped: dict[Stack, list[int]] = {stack: [] for stack in drops}
    with ExitStack() as without:
        while open_stacks := [stack for stack in drops if len(dropped[stack]) < drops[stack]]:
            # A layer of the decoder changes nothing in the encoder.
            encoded = encode(model, batches) if "decoder" in open_stacks else []
            losses = {}
            for stack in open_stacks:
                for number, layer in enumerate(backbone.layers(model, stack), start=1):
                    if number in dropped[stack]:
                        continue
                    with left_out(layer):
                        states = encoded if stack == "decoder" else encode(model, batches)
                        losses[stack, number] = mean_loss(model, batches, states)
            stack, number = min(losses, key=losses.__getitem__)
            without.enter_context(left_out(backbone.layers(model, stack)[number - 1]))
            dropped[stack].append(number)
    return {stack: sorted(numbers) for stack, numbers in dropped.items()}
