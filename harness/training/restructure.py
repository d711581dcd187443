"""Changes of the structure during training: what was built for the old structure is built anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from harness.errors import HarnessError
from harness.model.composition import change_structure, layers
from harness.records.report import LayersKept, StructureChange
from harness.training.build import optimizer_of, parameters_of
from harness.training.engines.activation_checkpointing import checkpoint_activations
from harness.training.engines.packed import PackedEngine, packing_obstacle
from harness.training.recording import record_steps
from harness.training.trainer import Trainer


def restructure(trainer: Trainer, changes: Sequence[StructureChange]) -> None:
    """Make changes of the structure between two steps.

    The engine's patches, the optimizer, recorded steps and the counts of the report follow. The
    optimizer keeps its state of the parameters that stay. A schedule of the learning rate refers to
    the old optimizer: make a new one.

    Args:
        trainer: the trainer, changed in place; without gradients.
        changes: the changes, in order.

    Raises:
        HarnessError: nothing is trained any more, or the new structure cannot be packed.
    """
    run, model, engine = trainer.run, trainer.model, trainer.engine
    engine.unpatch(model)
    with torch.no_grad():
        change_structure(model, run.backbone, run.recipe, changes)
    model.to(trainer.device)  # New modules may have been made elsewhere, and for evaluation.
    model.train(model.training)
    _require_trainable(trainer, changes)
    if isinstance(engine, PackedEngine):
        engine.forget_weights()
    engine.patch(model)
    if run.checkpointing:
        checkpoint_activations(model, run.backbone, trainer.objective.dropout_context)
    trainer.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = optimizer_of(run, model, trainer.trained)
    _keep_state(trainer.optimizer, optimizer)
    trainer.optimizer = optimizer
    if trainer.uses_graphs and trainer.graphs is not None:
        record_steps(trainer, trainer.graphs.record)
    if trainer.layer_numbers is not None:
        kept = trainer.layer_numbers.kept(layers(model, run.backbone))
        trainer.layers_kept = LayersKept(encoder=kept["encoder"], decoder=kept["decoder"])
        trainer.objective.layers = kept
    trainer.parameters = parameters_of(model, trainer.parameters.original)
    trainer.changes += changes


def change_notes(changes: Iterable[StructureChange]) -> list[str]:
    """Return a note on a training whose structure changed, or nothing."""
    steps = sorted({change.step for change in changes})
    if not steps:
        return []
    after = f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"
    return [
        f"The structure changed after {after}. Layers, parameters and quality are those of the "
        "last structure; speed, memory and costs of decoding were measured before training."
    ]


def _require_trainable(trainer: Trainer, changes: Sequence[StructureChange]) -> None:
    names = " and ".join(dict.fromkeys(change.compressor for change in changes))
    if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
        raise HarnessError(
            f"{names} left nothing to train in step {changes[-1].step}.",
            "This is a mistake in the compressor: make_change must leave trained parameters.",
        )
    if trainer.engine.name == "packed":
        obstacle = packing_obstacle(trainer.model, trainer.run.backbone)
        if obstacle is not None:
            raise HarnessError(
                f"{names} changed the model in step {changes[-1].step} so that sequences cannot be "
                f"packed: {obstacle}.",
                "Train with padded batches: --set train.engine=padded",
            )


def _keep_state(old: Optimizer, new: Optimizer) -> None:
    """Give an optimizer another one's state of the parameters that both have."""
    for group in new.param_groups:
        for parameter in group["params"]:
            assert isinstance(parameter, nn.Parameter)
            if parameter in old.state:
                new.state[parameter] = old.state[parameter]
