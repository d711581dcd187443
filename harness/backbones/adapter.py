"""Adapters saved by PEFT, which are merged into their base model before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter without its base."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Return the base that an adapter's configuration names: a folder, or a hub id.

    A relative folder is first looked up beside the adapter.

    Raises:
        HarnessError: the base is not named, or the configuration or the weights cannot be read.
    """
    try:
        base = json.loads((folder / CONFIG).read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"{str(folder / CONFIG)!r} is not the configuration of an adapter: {error!r}.",
            "Copy the original there.",
        ) from error
    if not isinstance(base, str) or not base:
        raise HarnessError(
            f"The folder {str(folder)!r} holds an adapter but does not name its base model.",
            f"Write the base model's folder or hub id as base_model_name_or_path into {CONFIG}.",
        )
    if not (folder / WEIGHTS).is_file():
        raise HarnessError(
            f"The adapter in {str(folder)!r} has no {WEIGHTS}.",
            "Save it again with a current version of PEFT; pickles are not read.",
        )
    beside = folder / Path(base).expanduser()
    return str(beside) if beside.is_dir() else base


def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Add an adapter's updates to its base, and return the base.

    Raises:
        HarnessError: the adapter is damaged or does not fit.
    """
    import warnings

    from peft import PeftConfig, PeftModel

    try:
        with warnings.catch_warnings():
            # Warnings about future library code, and about T5 v1.1's embeddings, which were never
            # tied.
            warnings.simplefilter("ignore")
            adapted = PeftModel(model, PeftConfig.from_pretrained(str(folder)))
            loaded = adapted.load_adapter(str(folder), "default", use_safetensors=True)
            lacking = [name for name in loaded.missing_keys if "default" in name]
            strange = list(loaded.unexpected_keys)
            if lacking or strange:
                names = ", ".join([*lacking, *strange][:3])
                raise ValueError(
                    f"{len(lacking)} of its weights are missing and {len(strange)} have no place "
                    f"in the base, among them {names}"
                )
            merged: PreTrainedModel = adapted.merge_and_unload()
    except Exception as error:  # The errors of readers of damaged files are not documented.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise HarnessError(
            f"The adapter in {str(folder)!r} cannot be merged into its base: {reason}",
            f"Write the model that it was trained on as base_model_name_or_path into {CONFIG}.",
        ) from error
    return merged.requires_grad_(True)
