"""Models from their files: versions, folders of weights, and the models that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, try_to_load_from_cache
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from yaml import YAMLError

from harness import HarnessError, folder_hash
from harness.backbones import weight_files
from harness.backbones.hub import snapshot


def files_version(source: str) -> str:
    """Return a folder's hash, or a hub id with its commit in the hub's cache, if it is there."""
    if Path(source).is_dir():
        return f"sha256:{folder_hash(Path(source))}"
    # The folder of a snapshot is named by its commit; its files are downloaded on use.
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        cached = try_to_load_from_cache(source, name)
        if isinstance(cached, str):
            return f"{source}@{Path(cached).parent.name}"
    return source


def stated_license(source: str) -> str | None:
    """Return the license in the card of a folder or of a hub id in the cache; None without one."""
    path = Path(source) / "README.md"
    if not Path(source).is_dir():
        cached = try_to_load_from_cache(source, "README.md")
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    try:
        stated = ModelCard.load(path).data.license
    except (OSError, ValueError, YAMLError):  # There is no card, or its head is damaged.
        return None
    return stated if isinstance(stated, str) else None


def weights_folder(source: str, local_files_only: bool) -> tuple[Path, list[str]]:
    """Return a folder with the weights as safetensors, and notes; download what is missing.

    Args:
        source: a folder, or a hub id.
        local_files_only: download nothing.

    Raises:
        OSError: the hub cannot supply them.
        HarnessError: their format is not supported, or they are damaged.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = snapshot(source, local_files_only)
    weight_files.require_weights(folder)
    if files := weight_files.shards(folder, weight_files.SAFETENSORS):
        weight_files.require_headers(files)
        return folder, []
    note = f"The weights were converted from {weight_files.PICKLE}."
    return weight_files.converted(folder), [note]


def read_model(
    folder: Path, config: PreTrainedConfig, device: str | None
) -> tuple[PreTrainedModel, Any]:
    """Return a model in float32 with the weights of a folder, and transformers' loading info.

    Args:
        folder: holds the weights as safetensors.
        config: the model's.
        device: where the weights go; by default to the CPU.
    """
    # Safetensors only, because a pickle could execute code.
    return AutoModelForSeq2SeqLM.from_pretrained(  # type: ignore[no-any-return]
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        device_map=device,
    )


def build_model(config: PreTrainedConfig, name: str) -> PreTrainedModel:
    """Return a model in float32 with random weights.

    Args:
        config: the model's.
        name: the backbone's, for messages.

    Raises:
        HarnessError: no model can be built from the configuration.
    """
    try:
        return AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise HarnessError(
            f"No model can be built from the configuration of {name!r}: {error}",
            "Correct its config.json, or copy the original there.",
        ) from error


def enlarge_embedding(model: PreTrainedModel, size: int) -> list[str]:
    """Enlarge the embedding, in place, to at least ``size`` tokens; return notes on it."""
    before = model.get_input_embeddings().num_embeddings
    if size <= before:
        return []
    on_meta = next(model.parameters()).is_meta
    model.resize_token_embeddings(size, mean_resizing=not on_meta)
    return [f"The embedding was enlarged from {before:,} to {size:,} tokens and is trained."]
