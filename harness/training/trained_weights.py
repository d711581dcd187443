"""The trained weights on disk, as safetensors: all that a run has to hand over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "weights.safetensors"


def keep(trained: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Write the trained weights; the file is replaced whole or not at all."""
    write_tensors(folder / FILE, trained, {"format": "pt"})


@torch.no_grad()
def restore(trained: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Read the trained weights back, bit for bit, one tensor at a time."""
    with safe_open(folder / FILE, framework="pt") as file:
        for name, parameter in trained.items():
            parameter.copy_(file.get_tensor(name))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, which appears whole or not at all.

    Args:
        path: of the file.
        tensors: name -> tensor, on any device; no two of them share memory.
        metadata: goes into the file's header.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f"{path.name}.tmp")
    save_file(on_cpu, temporary, metadata=metadata)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
