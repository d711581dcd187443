"""The trained weights on disk, as safetensors: all that a run has to hand over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

FILE = "weights.safetensors"


def keep(trained: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Write the trained weights; the file is replaced whole or not at all."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
    temporary = folder / f"{FILE}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / FILE)  # noqa: PTH105


@torch.no_grad()
def restore(trained: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Read the trained weights back, bit for bit, one tensor at a time."""
    with safe_open(folder / FILE, framework="pt") as file:
        for name, parameter in trained.items():
            parameter.copy_(file.get_tensor(name))
