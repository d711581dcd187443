"""The trainer: a composed model on its device, with an engine and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.model.composition import LayerNumbers
from harness.records.report import LayersKept, Parameters, StructureChange
from harness.training.compressor_events import CompressorEvents
from harness.training.engine_name import describe_engine
from harness.training.engines.padded import Batch, Engine
from harness.training.objective import LossSum, Objective
from harness.training.parallel.sharding import Shards
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.step_graphs import StepGraphs
from harness.training.trained_check import check_trained


@dataclass
class Trainer:
    """A model in training.

    Attributes:
        model: the composed model.
        device: the device that holds the model.
        engine: builds batches and runs the model on them.
        objective: computes the loss of a batch.
        optimizer: updates the trained parameters.
        trained: qualified name -> trained parameter.
        clip_norm: a gradient with a larger norm is scaled down to this norm.
        dtype: the precision of matrix products.
        learning_rate: the peak learning rate.
        layers_kept: the layers that the recipe kept.
        parameters: counts of the composed model's parameters.
        events: calls the compressors of the recipe.
        run: the settings, the backbone and the recipe that it was built from.
        layer_numbers: the numbers of the backbone's layers; None if they are not known.
        changes: the changes of the structure so far, which ``restructure`` made.
        processes: the processes that take each step together; see ``join``.
        graphs: records steps as CUDA graphs; None if they cannot be.
        graph_obstacle: the reason if they cannot be.
        packing_obstacle: the reason if batches are padded although nobody asked for it.
        fallbacks: sentences on the engines that failed in this training.
        shards: the shards of the model, if it is divided among the processes; None if it is whole.
    """

    model: PreTrainedModel
    device: torch.device
    engine: Engine
    objective: Objective
    optimizer: torch.optim.Optimizer
    trained: dict[str, nn.Parameter]
    clip_norm: float
    dtype: torch.dtype
    learning_rate: float
    layers_kept: LayersKept
    parameters: Parameters
    events: CompressorEvents
    run: ResolvedRun
    layer_numbers: LayerNumbers | None = None
    changes: list[StructureChange] = field(default_factory=list)
    processes: Processes = SINGLE_PROCESS
    graphs: StepGraphs | None = None
    graph_obstacle: str | None = None
    packing_obstacle: str | None = None
    fallbacks: list[str] = field(default_factory=list)
    shards: Shards | None = None

    def __post_init__(self) -> None:
        self._loss = self.shards.root if self.shards else LossSum(self.model, self.objective)

    def join(self, processes: Processes) -> None:
        """Take each further step together with other processes, whose trainers are equal.

        Raises:
            HarnessError: a compressor changes the structure during training.
        """
        self.events.check_processes(processes.size)
        self.processes = processes
        if self.shards is None:
            processes.copy_from_main(self.trained.values())
            self._loss = processes.wrap(LossSum(self.model, self.objective))
        if processes.size > 1:
            self.graphs, self.graph_obstacle = None, "several processes take each step"

    @property
    def engine_name(self) -> str:
        """The name of the engine in reports, with the reason if it is not the fastest."""
        obstacle = self.graphs.obstacle if self.graphs else self.graph_obstacle
        return describe_engine(self.engine, self.device, self.packing_obstacle, obstacle)

    @property
    def uses_graphs(self) -> bool:
        """True if steps are recorded as CUDA graphs."""
        return self.graphs is not None and self.graphs.obstacle is None

    def backward(
        self,
        micro_batches: Iterable[Batch],
        target_tokens: int,
        on_pass: Callable[[str], None] = lambda part: None,
    ) -> Tensor:
        """Add the gradients of one optimizer step and return its loss.

        Args:
            micro_batches: this process's batches of the step, on the CPU.
            target_tokens: target tokens of the whole step. The loss is the mean over these, so
                that neither the loss nor the gradient depends on the size of a micro-batch or on
                the number of processes.
            on_pass: is called with ``forward`` or ``backward`` when that pass has been queued.

        Returns:
            The loss in nats per target token, a scalar on the device. Reading it waits for the
            device.
        """
        batches = list(micro_batches)
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            exchange = self.shards or self.processes
            with nullcontext() if last else exchange.without_exchange(self._loss):
                loss = self._loss(batch.to(self.device)) / target_tokens
                on_pass("forward")
                (loss * self.processes.size if self.processes.size > 1 else loss).backward()
            on_pass("backward")
            total += loss.detach()
        return self.processes.sum(total)

    def step(
        self, micro_batches: Iterable[Batch], target_tokens: int, check: bool = False
    ) -> Tensor:
        """Take one optimizer step and return its loss; see ``backward`` for both.

        Args:
            micro_batches: see ``backward``.
            target_tokens: see ``backward``.
            check: check that all trained parameters have a gradient, before the update.
        """
        batches = list(micro_batches)
        recorded = None if check else self._recorded_step(batches, target_tokens)
        if recorded is not None:
            self.events.step_taken(self.model, self.trained)
            return recorded
        loss = self.backward(batches, target_tokens)
        if check:
            check_trained(self.optimizer, self.trained)
        self.update()
        return loss

    def _recorded_step(self, batches: Sequence[Batch], target_tokens: int) -> Tensor | None:
        """Take a step as CUDA graphs and return its loss; None if it must be taken otherwise."""
        if self.graphs is None or not self.model.training:
            return None
        return self.graphs.step(batches, target_tokens)

    def update(self) -> None:
        """Clip the gradients, update the weights, call the compressors, and clear the gradients."""
        nn.utils.clip_grad_norm_(self.trained.values(), self.clip_norm)
        self.optimizer.step()
        self.events.step_taken(self.model, self.trained)
        self.optimizer.zero_grad()

    def unpatched(self) -> AbstractContextManager[PreTrainedModel]:
        """Undo the engine's patches in the context, to generate with the model or to save it.

        A sharded model is whole in the context, and every process must enter it.
        """
        shards, engine = self.shards, self.engine
        return shards.gathered(self.dtype) if shards else engine.unpatched(self.model)
