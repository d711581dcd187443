"""Passes of a model over calibration examples: states of layers, losses, and layers left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from harness import STACKS, Role, Stack

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone


@contextmanager
def evaluating(model: PreTrainedModel, *, gradients: bool = False) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients unless they are wanted."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        model.train(training)


def real_tokens(batch: BatchEncoding) -> dict[Stack, Tensor]:
    """Return the positions of each stack that are not padding, as masks."""
    return {"encoder": batch["attention_mask"].bool(), "decoder": batch["labels"] != -100}


def states_of(
    model: PreTrainedModel, backbone: Backbone, batch: BatchEncoding
) -> dict[Stack, list[Tensor]]:
    """Return what enters each layer of a stack, and what leaves the last one.

    Returns:
        Stack -> tensors of shape (tokens that are not padding, width), one more than layers.
    """
    real, states = real_tokens(batch), {stack: list[Any]() for stack in STACKS}

    def before(stack: Stack, layer: Any, inputs: tuple[Tensor, ...]) -> None:
        states[stack].append(inputs[0][real[stack]])

    def after(stack: Stack, layer: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        states[stack].append(first_of(output)[real[stack]])

    with ExitStack() as hooks:
        for stack in STACKS:
            layers = list(backbone.layers(model, stack))
            for layer in layers:
                handle = layer.register_forward_pre_hook(partial(before, stack))
                hooks.callback(handle.remove)
            hooks.callback(layers[-1].register_forward_hook(partial(after, stack)).remove)
        model(**batch, use_cache=False)
    return states


@contextmanager
def left_out(layer: nn.Module) -> Iterator[None]:
    """Make a model compute as if a layer were not there: the layer returns its input."""

    def unchanged(_: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
        # T5 passes the stack's position bias on beside the states.
        return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]

    handle = layer.register_forward_hook(unchanged)
    try:
        yield
    finally:
        handle.remove()


def encode(model: PreTrainedModel, batches: Sequence[BatchEncoding]) -> list[Any]:
    """Return what the encoder computes of each batch."""
    encoder = model.get_encoder()
    return [
        encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for batch in batches
    ]


def mean_loss(
    model: PreTrainedModel, batches: Sequence[BatchEncoding], encoded: Sequence[Any]
) -> float:
    """Return the cross-entropy of a target token, in nats.

    Args:
        model: the model.
        batches: the examples.
        encoded: what the encoder computed of each batch.
    """
    total, tokens = 0.0, 0
    for batch, outputs in zip(batches, encoded, strict=True):
        count = int(real_tokens(batch)["decoder"].sum())
        total += float(decode(model, batch, outputs).loss) * count
        tokens += count
    return total / tokens


def decode(model: PreTrainedModel, batch: BatchEncoding, encoded: Any) -> Any:
    """Return the outputs of a model whose encoder has computed a batch already."""
    return model(
        encoder_outputs=encoded,
        attention_mask=batch["attention_mask"],
        labels=batch["labels"],
        use_cache=False,
    )


Place = tuple[Any, Literal["input", "output"]]
"""A module, and whether its input or its output is meant."""


@contextmanager
def reading(places: Sequence[Place]) -> Iterator[dict[int, Tensor]]:
    """Keep what passes some places of a model: number of the place -> states."""
    found: dict[int, Tensor] = {}

    def read(number: int, side: str, _: Any, inputs: Any, output: Any) -> None:
        found[number] = first_of(inputs if side == "input" else output)

    with ExitStack() as hooks:
        for number, (module, side) in enumerate(places):
            handle = module.register_forward_hook(partial(read, number, side))
            hooks.callback(handle.remove)
        yield found


def first_of(output: Any) -> Tensor:
    """Return the states that a layer returns, alone or before others."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def by_layer(
    model: PreTrainedModel, backbone: Backbone, role: Role
) -> dict[Stack, list[nn.Module]]:
    """Return the module of a role in each layer of the stacks that have the role."""
    modules = {id(module): module for module in backbone.modules(model, role).values()}
    found = {
        stack: [
            modules[id(module)]
            for layer in backbone.layers(model, stack)
            for module in layer.modules()
            if id(module) in modules
        ]
        for stack in STACKS
    }
    return {stack: layers for stack, layers in found.items() if layers}


@dataclass(frozen=True)
class Inputs:
    """Inputs of a linear layer in a batch, without padding.

    Attributes:
        values: shape (tokens, inputs).
        gradients: gradients of the loss, summed over target tokens; None if nobody asked.
    """

    values: Tensor
    gradients: Tensor | None = None


def inputs_of(
    model: PreTrainedModel,
    layers: Mapping[Stack, Sequence[nn.Module]],
    batch: BatchEncoding,
    *,
    gradients: bool = False,
) -> dict[Stack, list[Inputs]]:
    """Return what enters linear layers.

    Args:
        model: the model, in evaluation mode.
        layers: the linear layers of each stack.
        batch: the examples.
        gradients: also compute the gradients of the loss.
    """
    import torch

    states: dict[nn.Module, Tensor] = {}

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states[layer] = inputs[0]

    real = real_tokens(batch)
    flat = [layer for stack in layers for layer in layers[stack]]
    with ExitStack() as hooks:
        for layer in flat:
            hooks.callback(layer.register_forward_pre_hook(before).remove)
        loss = model(**batch, use_cache=False).loss
    slopes: dict[nn.Module, Tensor] = {}
    if gradients:
        tokens = int(real["decoder"].sum())
        computed = torch.autograd.grad(loss * tokens, [states[layer] for layer in flat])
        slopes = dict(zip(flat, computed, strict=True))
    return {
        stack: [
            Inputs(
                states[layer].detach()[real[stack]],
                slopes[layer][real[stack]] if gradients else None,
            )
            for layer in layers[stack]
        ]
        for stack in layers
    }
