"""The optimizer of a training, by the settings' name for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from harness.errors import HarnessError
from harness.spec.run_spec import TrainSettings


def make_optimizer(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    settings: TrainSettings,
    learning_rate: float,
) -> Optimizer:
    """Return the optimizer that the settings name, over the trained parameters.

    Each is set as transformers' Trainer sets the one that it calls ``adamw_torch_fused``,
    ``adafactor`` or ``adamw_bnb_8bit``.

    Args:
        model: holds the parameters; says which of them are norms.
        trained: qualified name -> parameter.
        settings: the optimizer, its own settings, and what decays.
        learning_rate: the peak.

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

        made: Optimizer = Adafactor(
            groups, lr=learning_rate, scale_parameter=False, relative_step=False
        )
        return made
    if settings.optimizer == "adamw_8bit":
        require_optimizer(settings)
        from bitsandbytes.optim import AdamW, GlobalOptimManager

        with _disable_current_modes():  # It makes its tables from values, also in a prediction.
            in_8_bits: Optimizer = AdamW(groups, **adam, optim_bits=8)
        # As in transformers' Trainer: embeddings are less stable than other weights.
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
            "pip install seq2seq-harness[bitsandbytes]. Or take another: "
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
    return [{"params": of, "weight_decay": decay} for decay, of in divided.items() if of]


def _decaying(model: nn.Module) -> set[str]:
    """Return the names of the parameters that transformers' Trainer lets decay."""
    from transformers import Trainer

    # The method asks nothing of its Trainer.
    return set(Trainer.get_decay_parameter_names(None, model))
