"""Gates of layers, learned on calibration examples: the smallest belong to the layers to drop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from compressors.calibrated import evaluating, first_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone, Stack

_RATE = 0.05
"""Learning rate of the gates: those that nothing holds close in twenty steps."""
_PENALTY = 0.1
"""Nats of the loss of a target token that an open gate costs."""


def gate_scores(
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Sequence[BatchEncoding],
    stacks: Sequence[Stack],
    steps: int,
) -> dict[Stack, list[float]]:
    """Learn a gate for each layer of some stacks and return its mean over the steps.

    A gate multiplies what a layer adds to its input. All gates begin open, at 1. They are trained
    to lower the loss plus a penalty on their absolute values, while the weights stay: sparse
    structure selection (Huang and Wang 2018), with Adam. Gates that closed early have small means,
    so that those which end at 0 are told apart.

    Args:
        model: the model; its weights, and what is trained, stay as they are.
        backbone: finds its layers.
        batches: the calibration examples, one batch for each step in turn.
        stacks: the stacks whose layers may be dropped.
        steps: optimizer steps.
    """
    import torch

    sizes = {stack: len(backbone.layers(model, stack)) for stack in stacks}
    device = next(model.parameters()).device
    gates = {s: torch.ones(sizes[s], device=device, requires_grad=True) for s in stacks}
    totals = {s: torch.zeros(sizes[s], device=device) for s in stacks}
    optimizer = torch.optim.Adam(list(gates.values()), lr=_RATE)
    with evaluating(model, gradients=True), gated(model, backbone, gates):
        for step in range(steps):
            loss = model(**batches[step % len(batches)], use_cache=False).loss
            loss = loss + _PENALTY * sum(gate.abs().sum() for gate in gates.values())
            slopes = torch.autograd.grad(loss, list(gates.values()))
            for gate, slope in zip(gates.values(), slopes, strict=True):
                gate.grad = slope
            optimizer.step()
            for stack, gate in gates.items():
                totals[stack] += gate.detach().abs()
    return {stack: (total / steps).tolist() for stack, total in totals.items()}


@contextmanager
def gated(
    model: PreTrainedModel, backbone: Backbone, gates: Mapping[Stack, Tensor]
) -> Iterator[None]:
    """Multiply what each layer adds to its input by its gate, in the context.

    Args:
        model: the model.
        backbone: finds its layers.
        gates: a number for each layer of a stack: 1 changes nothing, 0 leaves the layer out.
    """
    with ExitStack() as hooks:
        for stack, values in gates.items():
            for number, layer in enumerate(backbone.layers(model, stack)):
                hook = layer.register_forward_hook(partial(_through, values, number))
                hooks.callback(hook.remove)
        yield


def _through(
    gates: Tensor, number: int, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any
) -> Any:
    states = inputs[0] + gates[number] * (first_of(output) - inputs[0])
    # T5 passes the stack's position bias on beside the states.
    return (states, *output[1:]) if isinstance(output, tuple) else states
