"""Decides whether the steps of a training can be CUDA graphs."""

from __future__ import annotations

from transformers import PreTrainedModel

from harness.api.backbone import STACKS
from harness.api.compressor import Compressor
from harness.errors import HarnessError
from harness.training.engines.padded import Engine
from harness.training.objective import Objective
from harness.training.resolved_run import ResolvedRun


def graph_obstacle(
    run: ResolvedRun, model: PreTrainedModel, engine: Engine, objective: Objective
) -> str | None:
    """Return the reason why steps cannot be CUDA graphs, or None if they can.

    Args:
        run: the settings and the recipe.
        model: the composed model.
        engine: runs the model.
        objective: computes the loss.

    Raises:
        HarnessError: the settings demand graphs and there is an obstacle.
    """
    settings = run.spec.train
    obstacle = _obstacle(run, model, engine, objective)
    if settings.engine == "graph" and obstacle:
        raise HarnessError(
            f"Training steps cannot be CUDA graphs: {obstacle}.",
            "Leave out --set train.engine=graph; each kernel is then launched on its own.",
        )
    return obstacle


def _obstacle(
    run: ResolvedRun, model: PreTrainedModel, engine: Engine, objective: Objective
) -> str | None:
    settings, compressors = run.spec.train, run.recipe.compressors
    unsafe = [c.name for c in compressors if not c.graph_safe]
    acting = [c.name for c in compressors if type(c).on_step is not Compressor.on_step]
    obstacles = {
        f"train.engine={settings.engine}": settings.engine not in ("auto", "graph"),
        "the device is not a GPU": run.device.type != "cuda",
        "the batches are padded": engine.name != "packed",
        f"the optimizer {settings.optimizer} computes on the CPU": settings.optimizer != "adamw",
        "activation checkpointing saves and restores the random generator": run.checkpointing,
        "the model drops layers at random": any(
            getattr(model.config, f"{stack}_layerdrop", 0) for stack in STACKS
        ),
        f"{''.join(unsafe[:1])} does not declare that it is safe in a graph": unsafe,
        f"{''.join(acting[:1])} acts after each step, on its gradients": acting,
        "a compressor adds to the loss": objective.additions,
    }
    return next((reason for reason, stands in obstacles.items() if stands), None)
