"""EVA (Paischer et al. 2024): the principal directions of the inputs of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import HarnessError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import BatchEncoding, PreTrainedModel

_ROWS = 512
"""Largest number of tokens of which a layer's inputs are kept."""


def principal_directions(
    model: PreTrainedModel,
    layers: Mapping[str, nn.Module],
    batches: Sequence[BatchEncoding],
    rank: int,
    owner: str,
) -> dict[str, Tensor]:
    """Return, for each layer, the directions in which its inputs vary most.

    Every layer gets the same number, so that the number of trained weights does not depend on data.

    Args:
        model: the model that holds the layers.
        layers: qualified name -> linear layer.
        batches: training examples.
        rank: number of directions.
        owner: name of the compressor, for messages.

    Returns:
        Qualified name -> orthonormal rows, the most important first, shape (rank, inputs).

    Raises:
        HarnessError: there are fewer tokens or inputs than directions.
    """
    import torch

    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    needed = max(_ROWS, 4 * rank)
    training = model.training
    model.eval()
    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(partial(_collect, inputs[name], needed))
            stack.callback(hook.remove)
        stack.callback(model.train, training)
        for batch in batches:
            if all(sum(map(len, rows)) >= needed for rows in inputs.values()):
                break
            # One by one: a sequence by itself has no padding.
            for row in range(len(batch["input_ids"])):
                source = batch["attention_mask"][row].bool()
                target = batch["labels"][row] != -100
                model(
                    input_ids=batch["input_ids"][row, source][None],
                    labels=batch["labels"][row, target][None],
                )
    directions = {}
    for name, rows in inputs.items():
        found = torch.cat(rows)
        if min(found.shape) < rank:
            raise HarnessError(
                f"{owner}: init=eva needs {rank} tokens and inputs of {name}, and there are "
                f"{len(found)} and {found.shape[1]}.",
                f"Give a smaller rank: {owner}:init=eva,r={min(found.shape)}",
            )
        centered = found - found.mean(0)
        directions[name] = torch.linalg.svd(centered, full_matrices=False).Vh[:rank].contiguous()
    return directions


def _collect(rows: list[Tensor], needed: int, layer: Any, inputs: tuple[Tensor, ...]) -> None:
    missing = needed - sum(map(len, rows))
    if missing > 0:
        states = inputs[0].detach().float()
        rows.append(states.reshape(-1, states.shape[-1])[:missing].cpu())
