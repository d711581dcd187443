"""The trained weights on disk, in the safetensors format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from harness.records.tensor_file import write_tensors

FILE = "weights.safetensors"


def save_weights(trained: Mapping[str, Tensor], folder: Path) -> None:
    """Write the trained weights; an older file is replaced atomically."""
    write_tensors(folder / FILE, trained, {"format": "pt"})


@torch.no_grad()
def load_weights(trained: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Load the trained weights, bit for bit, one tensor at a time."""
    with safe_open(folder / FILE, framework="pt") as file:
        for name, parameter in trained.items():
            parameter.copy_(file.get_tensor(name))
