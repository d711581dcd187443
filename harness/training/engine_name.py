"""The engine of a training in words, with the reasons for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from harness.training.trainer import Trainer


def describe_engine(
    name: str, device: torch.device, packing_obstacle: str | None, graph_obstacle: str | None
) -> str:
    """Return the name of an engine, with the reason if it is not the fastest.

    Args:
        name: packed or padded.
        device: the device of the model; only a GPU records steps.
        packing_obstacle: the reason why batches are padded, unless it was asked for.
        graph_obstacle: the reason why steps are not CUDA graphs; None if they are.
    """
    if name == "padded":
        return f"{name}, not packed: {packing_obstacle}" if packing_obstacle else name
    if device.type != "cuda":
        return name
    return f"{name}, {f'no CUDA graphs: {graph_obstacle}' if graph_obstacle else 'CUDA graphs'}"


def fallback_notes(trainer: Trainer) -> list[str]:
    """Return sentences on the engines that failed in a training, for its report."""
    failed = trainer.graphs.obstacle if trainer.graphs else None
    notes = [f"Steps were not CUDA graphs, which failed: {failed}."] if failed else []
    return [*trainer.fallbacks, *notes]
