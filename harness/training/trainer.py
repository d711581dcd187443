"""The trainer: a composed model on its device, with an engine and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.compressor import Stage
from harness.errors import HarnessError
from harness.model.composition import compose, count_parameters, kept_layers, layers
from harness.records.report import LayersKept, Parameters
from harness.training.compressor_events import CompressorEvents
from harness.training.engines.activation_checkpointing import checkpoint_activations
from harness.training.engines.packed import choose_engine
from harness.training.engines.padded import Batch, Engine
from harness.training.objective import LossSum, Objective, make_objective
from harness.training.optimizer import make_optimizer
from harness.training.parameter_groups import own_groups
from harness.training.processes import SINGLE_PROCESS, Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.run_context import load_original, run_context


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
        processes: the processes that take each step together; see ``join``.
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
    processes: Processes = SINGLE_PROCESS

    def __post_init__(self) -> None:
        self._loss: nn.Module = LossSum(self.model, self.objective)

    def join(self, processes: Processes) -> None:
        """Take each further step together with other processes, whose trainers are equal."""
        self.processes = processes
        processes.copy_from_main(self.trained.values())
        self._loss = processes.wrap(LossSum(self.model, self.objective))

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
            exchange = nullcontext() if last else self.processes.without_exchange(self._loss)
            with exchange:
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
            check: call ``check_trained`` before the update.
        """
        loss = self.backward(micro_batches, target_tokens)
        if check:
            self.check_trained()
        self.update()
        return loss

    def update(self) -> None:
        """Clip the gradients, update the weights, call the compressors, and clear the gradients."""
        nn.utils.clip_grad_norm_(self.trained.values(), self.clip_norm)
        self.optimizer.step()
        self.events.step_taken(self.model, self.trained)
        self.optimizer.zero_grad()

    def release_teacher(self) -> None:
        """Free the memory of the teacher after training."""
        self.objective.teacher = self.objective.teacher_engine = None

    @property
    def teacher_tensors(self) -> list[Tensor]:
        """The weights and buffers of the teacher; empty if there is none."""
        teacher = self.objective.teacher
        return [*teacher.parameters(), *teacher.buffers()] if teacher else []

    @contextmanager
    def unpatched(self) -> Iterator[PreTrainedModel]:
        """Undo the engine's patches in the context, to generate with the model or to save it."""
        self.engine.unpatch(self.model)
        try:
            yield self.model
        finally:
            self.engine.patch(self.model)

    def check_trained(self) -> None:
        """Check that the optimizer holds exactly the trained parameters, and all have a gradient.

        Call it between ``backward`` and ``update``.

        Raises:
            HarnessError: they differ; the reported number of trained parameters would be wrong.
        """
        untrained, optimized = _untrained(self.optimizer, self.trained)
        if untrained or optimized != len(self.trained):
            raise HarnessError(
                f"{len(untrained)} parameters should be trained but get no gradient or are not in "
                f"the optimizer, the first of them {untrained[:1]}.",
                "This is a mistake in a compressor of the recipe: it must set requires_grad on "
                "exactly the parameters that the loss depends on.",
            )


def _untrained(
    optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]
) -> tuple[list[str], int]:
    """Return the parameters without a gradient or optimizer, and the number of optimized ones."""
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = [name for name, p in trained.items() if id(p) not in optimized or p.grad is None]
    return names, len(optimized)


def load_trainer(run: ResolvedRun, *, drawn_on_device: bool = False) -> Trainer:
    """Load the backbone, apply the recipe, and build a trainer of the result.

    Seeds all global generators, so that equal runs start from equal models.

    Args:
        run: the settings, the backbone and the recipe.
        drawn_on_device: see ``load_original``.
    """
    backbone = run.backbone
    model = load_original(run, drawn_on_device=drawn_on_device)
    original = count_parameters(model).total
    before = layers(model, backbone)
    context = run_context(run, drawn_on_device=drawn_on_device)
    model = compose(model, backbone, run.recipe, context)
    kept = kept_layers(before, layers(model, backbone))
    return build_trainer(
        model,
        run,
        LayersKept(encoder=kept["encoder"], decoder=kept["decoder"]),
        parameters_of(model, original),
        context.teacher() if "teacher" in run.recipe.needs else None,
    )


def parameters_of(model: PreTrainedModel, original: int) -> Parameters:
    """Count the parameters of a composed model.

    Args:
        model: the model after ``compose``.
        original: number of parameters of the published backbone.
    """
    count = count_parameters(model)
    return Parameters(
        original=original,
        total=count.total,
        trainable=count.trainable,
        trainable_pct_of_original=100 * count.trainable / original,
        trainable_pct_of_total=100 * count.trainable / count.total,
    )


def build_trainer(
    model: PreTrainedModel,
    run: ResolvedRun,
    layers_kept: LayersKept,
    parameters: Parameters,
    teacher: PreTrainedModel | None = None,
) -> Trainer:
    """Move a composed model to its device, and add an engine and an optimizer.

    Args:
        model: the composed model.
        run: the settings, the backbone that the model came from, and the recipe that was applied.
        layers_kept: see ``Trainer``.
        parameters: see ``Trainer``.
        teacher: the original model, frozen, if a compressor of the recipe needs it.

    Raises:
        HarnessError: packing or the optimizer is not available.
    """
    settings = run.spec.train
    model = model.to(run.device)
    device = next(model.parameters()).device  # The index of the GPU included.
    engine = choose_engine(
        model,
        run.backbone,
        device=device,
        dtype=run.dtype,
        pad_token_id=model.config.pad_token_id,
        packing=settings.packing,
        label_smoothing=settings.label_smoothing,
    )
    if run.checkpointing:
        checkpoint_activations(model, run.backbone, engine.dropout_context)
    adapted = Stage.ADAPTER in run.recipe.stages
    rate = settings.adapter_learning_rate if adapted else settings.learning_rate
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    own = own_groups(run.recipe.compressors, model, trained)
    optimizer = make_optimizer(model, trained, settings, rate, own)
    return Trainer(
        model=model,
        device=device,
        engine=engine,
        objective=make_objective(run, engine, teacher),
        optimizer=optimizer,
        trained=trained,
        clip_norm=settings.clip_norm,
        dtype=run.dtype,
        learning_rate=rate,
        layers_kept=layers_kept,
        parameters=parameters,
        events=CompressorEvents(run.recipe.compressors),
    )
