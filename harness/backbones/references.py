"""Backbones without a registered name: local folders and hub ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from harness import HarnessError
from harness.backbones.adapter import base_of, is_adapter
from harness.backbones.start_options import StartOptions, has_options, split_options, written

if TYPE_CHECKING:
    from harness.backbones.pretrained import Pretrained

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_folder(reference: str) -> bool:
    """Return whether the reference is a folder or is written as a path."""
    return reference.startswith(("/", "./", "../", "~")) or Path(reference).is_dir()


def looks_like_hub_id(reference: str) -> bool:
    """Return whether the reference has the form organisation/name, or ends with options."""
    return _HUB_ID.fullmatch(reference) is not None or has_options(reference)


def open_reference(reference: str) -> Pretrained:
    """Return the backbone of a folder or hub id, by the model type in its configuration.

    Raises:
        HarnessError: there is no such folder, or no family for its model type.
    """
    from harness.backbones.bart import Bart
    from harness.backbones.hub import read_config
    from harness.backbones.nano import NanoT5
    from harness.backbones.shapes import SHAPES
    from harness.backbones.t5 import T5

    families = {"t5": T5, "bart": Bart}
    reference, options = split_options(reference)
    if reference in SHAPES:
        return families[SHAPES[reference].family.partition(":")[0]](reference, options)
    if reference == "nano-t5":
        return NanoT5(reference, options)
    if is_folder(reference):
        folder = Path(reference).expanduser()
        if is_adapter(folder):
            return _with_adapter(folder, options)
        if not (folder / "config.json").is_file():
            raise HarnessError(
                f"There is no model in the folder {str(folder)!r}: config.json is missing.",
                "Give a folder written by save_pretrained, or a name from: harness list backbones",
            )
        reference = str(folder)
    elif _HUB_ID.fullmatch(reference) is None:
        raise HarnessError(
            f"Unknown backbone {reference!r}, or a backbone without options.",
            "Options follow a folder, a hub id or a built-in name. See: harness list backbones",
        )
    model_type = read_config(reference).model_type
    if model_type not in families:
        raise HarnessError(
            f"The model type {model_type!r} of {reference!r} is not supported.",
            f"Supported: {', '.join(families)}. "
            "A plugin can add others: see docs/write-a-backbone.md",
        )
    return families[model_type](reference, options)


def _with_adapter(folder: Path, options: StartOptions) -> Pretrained:
    """Return the base of an adapter, which loads with the adapter merged into it.

    Raises:
        HarnessError: the base is not available.
    """
    base = base_of(folder)
    try:
        backbone = open_reference(base + written(options))
    except HarnessError as error:
        raise HarnessError(
            f"The folder {str(folder)!r} holds an adapter, but its base {base!r} is not available: "
            f"{error.message}",
            "Write the base's folder as base_model_name_or_path into adapter_config.json, or copy "
            "the base to the folder that is named there.",
        ) from error
    backbone.adapter = folder
    return backbone
