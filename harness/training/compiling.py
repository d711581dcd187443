"""Compilation of a training's layers, before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness import clock
from harness.errors import first_line, is_out_of_memory
from harness.model.contexts import preserved_random_state
from harness.training.engines.compiled_layers import CompiledLayers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.training.engines.padded import Engine
    from harness.training.resolved_run import ResolvedRun
    from harness.training.schedule import Step
    from harness.training.trainer import Trainer


def compile_obstacle(run: ResolvedRun, sharded: bool) -> str | None:
    """Return the reason why the layers of a packed training cannot be compiled, or None.

    Args:
        run: the settings and the recipe.
        sharded: whether the weights are divided among processes.
    """
    unsafe = [c.name for c in run.recipe.compressors if not c.graph_safe]
    obstacles = {
        "attention in compiled layers is for a CPU": run.device.type != "cpu",
        "activation checkpointing computes layers twice": run.checkpointing,
        "processes share the weights of a layer": sharded,
        f"{''.join(unsafe[:1])} does not declare that it is safe in a graph": unsafe,
    }
    return next((reason for reason, stands in obstacles.items() if stands), None)


def compile_layers(engine: Engine, model: PreTrainedModel, obstacle: str | None) -> None:
    """Let the layers of a patched model be compiled, unless there is an obstacle."""
    engine.unpatch(model)
    engine.compiled = CompiledLayers(obstacle)
    engine.patch(model)


def compile_ahead(trainer: Trainer, step: Step) -> None:
    """Compile the layers of a trainer by two passes over a batch, if its engine compiles.

    Weights, buffers, gradients and random generators stay as they are. If a layer cannot be
    compiled, the engine computes all of them without a compiler.

    Args:
        trainer: takes no part in a group of processes yet.
        step: a step whose first micro-batch is computed.
    """
    engine, model = trainer.engine, trainer.model
    layers = engine.compiled
    if layers is None or layers.obstacle is not None:
        return
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    batch = engine.collate(step.micro_batches[0]).to(trainer.device)
    seconds = []
    layers.active = True
    model.train()
    try:
        with preserved_random_state(), torch.enable_grad():
            for _ in range(2):
                began = clock.seconds()
                loss = engine.loss_sum(model, batch)
                torch.autograd.grad(loss, [*trainer.trained.values()], allow_unused=True)
                loss.item()  # Wait for the device.
                seconds.append(clock.seconds() - began)
    except Exception as error:  # Compiled code may raise errors of any type.
        if is_out_of_memory(error):
            raise
        layers.give_up(f"{type(error).__name__}: {first_line(error)}")
    finally:
        for module, training in modes:
            module.training = training
        for buffer, values in buffers:
            buffer.data.copy_(values)
    if layers.obstacle is not None:
        engine.unpatch(model)
        engine.patch(model)
    else:
        layers.seconds = max(0.0, seconds[0] - seconds[1])
