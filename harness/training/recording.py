"""Recording of a trainer's steps as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from harness.model.recorder import Record
from harness.training.engines.packed import PackedEngine
from harness.training.engines.padded import Batch
from harness.training.engines.shapes import BatchSize, choose_shapes
from harness.training.objective import LossSum
from harness.training.pass_graphs import PassGraphs
from harness.training.recorded_pass import DeviceRates
from harness.training.schedule import Step, prefetch
from harness.training.step_graphs import StepGraphs
from harness.training.trainer import Trainer


def record_steps(trainer: Trainer, record: Record) -> None:
    """Let a trainer record its steps from now on.

    Args:
        trainer: has a packed engine.
        record: records a function, see ``CudaRecorder``.
    """
    assert isinstance(trainer.engine, PackedEngine)
    trainer.engine.keep_weights_in_place(trainer.model)
    model, optimizer, device = trainer.model, trainer.optimizer, trainer.device
    loss_sum = LossSum(model, trainer.objective)

    def take_pass(batch: Batch, target_tokens: Tensor) -> Tensor:
        loss: Tensor = loss_sum(batch) / target_tokens
        loss.backward()
        return loss.detach()

    def update() -> None:
        nn.utils.clip_grad_norm_(trainer.trained.values(), trainer.clip_norm)
        optimizer.step()

    def take_step(batch: Batch, target_tokens: Tensor) -> Tensor:
        loss = take_pass(batch, target_tokens)
        update()
        optimizer.zero_grad()
        return loss

    rates = DeviceRates(optimizer, device)
    passes = PassGraphs(take_pass, update, trainer.trained.values(), rates, device, record)
    trainer.graphs = StepGraphs(take_step, passes, optimizer, rates, device, record)


def plan_shapes(trainer: Trainer, sizes: Iterable[BatchSize], planned_steps: int) -> None:
    """Choose the shapes that batches are filled up to, if a trainer records its steps.

    Call it before batches are collated.

    Args:
        trainer: changed in place.
        sizes: sizes of the training's batches, or of a sample of them; read only if needed.
        planned_steps: optimizer steps of the training.
    """
    if trainer.graphs is None:
        return
    if known := list(sizes):
        assert isinstance(trainer.engine, PackedEngine)
        by_rows = trainer.engine.attends_to_rows(trainer.model)
        trainer.engine.shapes = choose_shapes(known, planned_steps, by_rows)


def record_ahead(trainer: Trainer, steps: Iterable[Step]) -> None:
    """Take steps until the shapes of all steps are recorded, so that a measurement replays."""
    if trainer.graphs is None:
        return
    seen: set[object] = set()
    for step, batches in prefetch(steps, trainer.engine.collate):
        shapes = {batch.shape for batch in batches}
        if not shapes <= seen:
            seen |= shapes
            for _ in range(2):
                trainer.step(batches, step.target_tokens)
