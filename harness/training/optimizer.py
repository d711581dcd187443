"""The optimizer of a training, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from harness.api.parameter_group import ParameterGroup
from harness.errors import HarnessError
from harness.spec.setting_groups import TrainSettings


def make_optimizer(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    settings: TrainSettings,
    learning_rate: float,
    own: Sequence[ParameterGroup] = (),
) -> Optimizer:
    """Return the optimizer that the settings name, over the trained parameters.

    Each optimizer is configured as in transformers' Trainer, where they are called
    ``adamw_torch_fused``, ``adafactor`` and ``adamw_bnb_8bit``.

    Args:
        model: the model that holds the parameters; its module types tell which are norms.
        trained: qualified name -> trained parameter.
        settings: name and settings of the optimizer, and which parameters decay.
        learning_rate: the peak learning rate.
        own: groups with a learning rate or a weight decay of their own.

    Raises:
        HarnessError: the optimizer's library is not installed.
    """
    groups = _groups(model, trained, settings, learning_rate, own)
    adam: dict[str, Any] = {
        "lr": learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.epsilon,
    }
    if settings.optimizer == "adafactor":
        from transformers import Adafactor

        adafactor: Optimizer = Adafactor(
            groups, lr=learning_rate, scale_parameter=False, relative_step=False
        )
        return adafactor
    if settings.optimizer == "adamw_8bit":
        require_optimizer(settings)
        from bitsandbytes.optim import AdamW, GlobalOptimManager

        # It builds its tables from real values, which a memory estimate's modes would not allow.
        with _disable_current_modes():
            in_8_bits: Optimizer = AdamW(groups, **adam, optim_bits=8)
        # Embeddings stay in 32 bits, as in transformers' Trainer: they are less stable.
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                keep = {"optim_bits": 32}
                GlobalOptimManager.get_instance().register_module_override(module, "weight", keep)
        return in_8_bits
    return torch.optim.AdamW(groups, **adam, fused=True)


def require_optimizer(settings: TrainSettings) -> None:
    """Make sure that the settings' optimizer is installed.

    Raises:
        HarnessError: it is not.
    """
    if settings.optimizer != "adamw_8bit":
        return
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise HarnessError(
            "The optimizer adamw_8bit needs the package bitsandbytes.",
            "pip install seq2seq-harness[bitsandbytes]. Or use another optimizer: "
            "--set train.optimizer=adafactor",
        ) from error


def _groups(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    settings: TrainSettings,
    learning_rate: float,
    own: Sequence[ParameterGroup],
) -> list[dict[str, Any]]:
    """Return the groups of parameters with common settings, and then those with their own."""
    names = {id(parameter): name for name, parameter in trained.items()}
    in_own = {id(parameter) for group in own for parameter in group.parameters}
    decaying = set(trained) if settings.decay == "all" else _decaying(model)
    common = {name: p for name, p in trained.items() if id(p) not in in_own}
    groups = _by_decay(common, decaying, settings.weight_decay, None)
    for group in own:
        rate = learning_rate if group.learning_rate is None else group.learning_rate
        members = {names[id(parameter)]: parameter for parameter in group.parameters}
        for part in _by_decay(members, decaying, settings.weight_decay, group.weight_decay):
            groups.append({**part, "lr": group.factor * rate, "name": group.name})
    return groups


def _by_decay(
    parameters: Mapping[str, nn.Parameter],
    decaying: set[str],
    weight_decay: float,
    own_decay: float | None,
) -> list[dict[str, Any]]:
    """Divide parameters into those that decay and those that do not, or give all one decay."""
    common = own_decay if own_decay is not None else 0.0 if weight_decay == 0 else None
    if common is not None:
        return [{"params": [*parameters.values()], "weight_decay": common}] if parameters else []
    divided = {
        weight_decay: [p for name, p in parameters.items() if name in decaying],
        0.0: [p for name, p in parameters.items() if name not in decaying],
    }
    return [
        {"params": members, "weight_decay": decay} for decay, members in divided.items() if members
    ]


def _decaying(model: nn.Module) -> set[str]:
    """Return the names of the parameters that transformers' Trainer lets decay."""
    from transformers import Trainer

    # The method does not use its `self`.
    return set(Trainer.get_decay_parameter_names(None, model))
