"""Trained weights and the optimizer's state, as one process has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class TrainedState:
    """Tensors that an optimizer step changes.

    Attributes:
        weights: qualified name -> trained weight.
        optimizer: the optimizer's ``state_dict``.
    """

    weights: Mapping[str, Tensor]
    optimizer: dict[str, Any]


EMPTY_STATE = TrainedState({}, {"state": {}, "param_groups": []})
"""State in the processes that do not have it."""


def gathered_state(trained: Mapping[str, nn.Parameter], optimizer: Optimizer) -> TrainedState:
    """Return the state of a sharded training, in the main process's memory; empty in the others.

    Every process must call this between two optimizer steps. Tensors are gathered one by one, so
    that the device holds one of them at most.

    Args:
        trained: qualified name -> trained parameter, a shard.
        optimizer: the optimizer of these parameters; it took a step.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    numbered, numbers = _numbered(optimizer)
    weights: Any = get_model_state_dict(numbered, options=options)
    state: Any = get_optimizer_state_dict(numbered, optimizer, options=options)
    if not weights:
        return EMPTY_STATE
    return TrainedState(
        {name: weights[str(numbers[parameter])] for name, parameter in trained.items()},
        {
            "state": {int(number): values for number, values in state["state"].items()},
            "param_groups": [
                {**group, "params": [int(number) for number in group["params"]]}
                for group in state["param_groups"]
            ],
        },
    )


def divide_state(
    state: TrainedState, trained: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> None:
    """Replace weights and optimizer's state by shards of the main process's; all must call this.

    Args:
        state: weights and optimizer's state in the main process, anything in the others.
        trained: qualified name -> trained parameter, a shard.
        optimizer: the optimizer of these parameters.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    numbered, numbers = _numbered(optimizer)
    weights: dict[str, Any] = {
        str(numbers[parameter]): state.weights[name]
        for name, parameter in trained.items()
        if name in state.weights
    }
    set_model_state_dict(numbered, weights, options=options)
    saved: Any = {
        "state": {str(number): values for number, values in state.optimizer["state"].items()},
        "param_groups": [
            {**group, "params": [str(number) for number in group["params"]]}
            for group in state.optimizer["param_groups"]
        ],
    }
    set_optimizer_state_dict(numbered, optimizer, saved if weights else {}, options=options)


def _numbered(optimizer: Optimizer) -> tuple[nn.Module, dict[nn.Parameter, int]]:
    """Return the trained parameters as a module that numbers them as the optimizer does."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = {parameter: number for number, parameter in enumerate(parameters)}
    return nn.ParameterList(parameters), numbers
