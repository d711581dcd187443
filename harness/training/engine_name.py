"""The engine of a training in words, with the reasons for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.training.engines.padded import Engine

if TYPE_CHECKING:
    from harness.training.trainer import Trainer


def describe_engine(
    engine: Engine, device: torch.device, packing_obstacle: str | None, graph_obstacle: str | None
) -> str:
    """Return the name of an engine, with the reason if it is not the fastest.

    Args:
        engine: packs or pads, and may compile layers.
        device: the device of the model; only a GPU records steps.
        packing_obstacle: the reason why batches are padded, unless it was asked for.
        graph_obstacle: the reason why steps are not CUDA graphs; None if they are.
    """
    name, compiled = engine.name, engine.compiled
    if name == "padded":
        return f"{name}, not packed: {packing_obstacle}" if packing_obstacle else name
    if compiled is not None:
        failed = compiled.obstacle
        return f"{name}, {f'layers not compiled: {failed}' if failed else 'compiled layers'}"
    if device.type != "cuda":
        return name
    return f"{name}, {f'no CUDA graphs: {graph_obstacle}' if graph_obstacle else 'CUDA graphs'}"


def fallback_notes(trainer: Trainer) -> list[str]:
    """Return sentences on the engines that failed in a training, for its report."""
    failed = trainer.graphs.obstacle if trainer.graphs else None
    notes = [f"Steps were not CUDA graphs, which failed: {failed}."] if failed else []
    if (layers := trainer.engine.compiled) and layers.obstacle:
        notes.append(f"Layers were not compiled: {layers.obstacle}.")
    elif layers:
        notes.append(f"Layers were compiled before training, in {layers.seconds:.0f} s.")
    return [*trainer.fallbacks, *notes]
