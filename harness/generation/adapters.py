"""Adapters for PEFT in a plain model, with a name for each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from harness.backbones.adapter import CONFIG, WEIGHTS
from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HINT = f"Give a folder with {CONFIG} and {WEIGHTS}."


def add_adapter(model: PreTrainedModel, name: str, folder: Path) -> None:
    """Add an adapter to a model, which may have others.

    Methods of transformers do the same, but they refuse some versions of PEFT.

    Args:
        model: the base.
        name: name of the adapter.
        folder: its files, as PEFT writes them.

    Raises:
        HarnessError: files are missing or damaged, or belong to another base.
    """
    from safetensors.torch import load_file

    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise HarnessError(
                f"The adapter {name!r} cannot be loaded: {str(folder)!r} has no {file}.", _HINT
            )
    before = set(model.state_dict())
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = {
            key.removeprefix("base_model.model."): tensor
            for key, tensor in load_file(folder / WEIGHTS).items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About several adapters, and about old names.
            inject_adapter_in_model(config, model, name)
        loaded = set_peft_model_state_dict(model, weights, adapter_name=name)
    except Exception as error:  # The errors of readers of damaged files are not documented.
        raise HarnessError(
            f"The adapter {name!r} in {str(folder)!r} does not fit the model: {first_line(error)}",
            f"{_HINT} Its base must be the model.",
        ) from error
    # Weights of the base are missing too, under a new name if they are adapted.
    missing = [k for k in loaded.missing_keys if k not in before and ".base_layer." not in k]
    if wrong := [*missing, *loaded.unexpected_keys]:
        raise HarnessError(
            f"The adapter {name!r} in {str(folder)!r} does not fit the model: {len(wrong):,} "
            f"weights are missing or left over, such as {wrong[0]}.",
            "Give the base that the adapter was trained on.",
        )


def use_adapter(model: PreTrainedModel, name: str | None) -> None:
    """Use one adapter of a model from now on.

    Args:
        model: a model with adapters.
        name: name of the adapter; None is the model without adapters.
    """
    for module in model.modules():
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
            module.enable_adapters(enabled=name is not None)
            if name is not None:
                module.set_adapter(name)
