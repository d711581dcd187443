"""Backbones that no list can name: local folders and hub ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.backbone import Backbone

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_folder(reference: str) -> bool:
    """Whether the reference is a folder, or is written as a path."""
    return reference.startswith(("/", "./", "../", "~")) or Path(reference).is_dir()


def looks_like_hub_id(reference: str) -> bool:
    """Whether the reference has the form organisation/name."""
    return _HUB_ID.fullmatch(reference) is not None


def open_reference(reference: str) -> Backbone:
    """Return the backbone for a folder or hub id, by the model type its configuration states.

    Raises:
        HarnessError: there is no such folder, or no family for its model type.
    """
    from harness.backbones.bart import Bart
    from harness.backbones.pretrained import read_config
    from harness.backbones.t5 import T5

    if is_folder(reference):
        folder = Path(reference).expanduser()
        if not (folder / "config.json").is_file():
            raise HarnessError(
                f"There is no model in the folder {str(folder)!r}: config.json is missing.",
                "Give a folder written by save_pretrained, or a name from: harness list backbones",
            )
        reference = str(folder)
    families = {"t5": T5, "bart": Bart}
    model_type = read_config(reference).model_type
    if model_type not in families:
        raise HarnessError(
            f"The model type {model_type!r} of {reference!r} is not supported.",
            f"Supported: {', '.join(families)}. A plugin can add others: see docs/plugins.md",
        )
    return families[model_type](reference)
