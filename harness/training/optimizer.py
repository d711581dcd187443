"""The optimizer of a training, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from harness.errors import HarnessError
from harness.spec.setting_groups import TrainSettings


def make_optimizer(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    settings: TrainSettings,
    learning_rate: float,
) -> Optimizer:
    """Return the optimizer that the settings name, over the trained parameters.

    Each optimizer is configured as in transformers' Trainer, where they are called
    ``adamw_torch_fused``, ``adafactor`` and ``adamw_bnb_8bit``.

    Args:
        model: the model that holds the parameters; its module types tell which are norms.
        trained: qualified name -> trained parameter.
        settings: name and settings of the optimizer, and which parameters decay.
        learning_rate: the peak learning rate.

    Raises:
        HarnessError: the optimizer's library is not installed.
    """
    groups = _groups(model, trained, settings)
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
    model: nn.Module, trained: Mapping[str, nn.Parameter], settings: TrainSettings
) -> list[dict[str, Any]]:
    """Divide the parameters into those that decay and those that do not."""
    if settings.decay == "all":
        return [{"params": [*trained.values()], "weight_decay": settings.weight_decay}]
    decaying = _decaying(model)
    divided = {
        settings.weight_decay: [p for name, p in trained.items() if name in decaying],
        0.0: [p for name, p in trained.items() if name not in decaying],
    }
    return [
        {"params": parameters, "weight_decay": decay}
        for decay, parameters in divided.items()
        if parameters
    ]


def _decaying(model: nn.Module) -> set[str]:
    """Return the names of the parameters that transformers' Trainer lets decay."""
    from transformers import Trainer

    # The method does not use its `self`.
    return set(Trainer.get_decay_parameter_names(None, model))
