"""Removal of each layer: the loss without it, and how much it changes its input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.api.backbone import STACKS, Backbone, Stack
from harness.diagnosis.losses import (
    Batches,
    encode,
    example_losses,
    per_token,
    target_tokens,
    with_shared_weights,
)
from harness.diagnosis.record import LayerRemoval

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness.api.arrays import FloatArray


def remove_each_layer(
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Batches,
    losses: FloatArray,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[LayerRemoval]:
    """Remove each layer in turn, and compare the losses on the same examples.

    Args:
        model: the model, in evaluation mode; it stays as it is.
        backbone: finds the layers.
        batches: the examples.
        losses: losses of the examples with all layers.
        on_progress: is called with the number of layers done, and of all layers.

    Returns:
        The layers of the encoder, then those of the decoder. A stack of one layer has none that
        can be removed.
    """
    tokens = target_tokens(batches)
    encoded = encode(model, batches)
    influence = block_influence(model, backbone, batches)
    depths = {stack: len(backbone.layers(model, stack)) for stack in STACKS}
    places = [(s, i) for s, depth in depths.items() if depth > 1 for i in range(1, depth + 1)]
    found = []
    for done, (stack, number) in enumerate(places):
        on_progress(done, len(places))
        pruned = with_shared_weights(model)
        backbone.keep_layers(pruned, stack, [i for i in range(1, depths[stack] + 1) if i != number])
        # A layer of the decoder changes nothing in the encoder.
        states = encoded if stack == "decoder" else None
        increase = per_token(example_losses(pruned, batches, states) - losses, tokens)
        found.append(
            LayerRemoval(
                stack=stack,
                number=number,
                loss_increase=increase,
                influence=influence[stack][number - 1],
            )
        )
    on_progress(len(places), len(places))
    return found


@torch.no_grad()
def block_influence(
    model: PreTrainedModel, backbone: Backbone, batches: Batches
) -> dict[Stack, list[float]]:
    """Return 1 minus the cosine of each layer's input and output, averaged over real tokens.

    Args:
        model: the model, in evaluation mode.
        backbone: finds the layers.
        batches: the examples.
    """
    sums = {stack: [0.0] * len(backbone.layers(model, stack)) for stack in STACKS}
    tokens = dict.fromkeys(STACKS, 0)
    real: dict[Stack, Tensor] = {}

    def add(stack: Stack, number: int, layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        states = output if torch.is_tensor(output) else output[0]
        change = 1 - torch.cosine_similarity(inputs[0].float(), states.float(), dim=-1)
        sums[stack][number] += float(change[real[stack]].sum())

    with ExitStack() as hooks:
        for stack in STACKS:
            for number, layer in enumerate(backbone.layers(model, stack)):
                hook = layer.register_forward_hook(partial(add, stack, number))
                hooks.callback(hook.remove)
        for batch in batches:
            real = {"encoder": batch["attention_mask"].bool(), "decoder": batch["labels"] != -100}
            for stack, mask in real.items():
                tokens[stack] += int(mask.sum())
            model(**batch)
    return {stack: [total / tokens[stack] for total in sums[stack]] for stack in STACKS}
