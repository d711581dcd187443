"""The trainer: a composed model on its device, with an engine and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from harness.api.backbone import Backbone
from harness.api.compressor import Stage
from harness.api.recipe import Recipe
from harness.errors import HarnessError
from harness.model.composition import compose, count_parameters, kept_layers, layers
from harness.records.report import LayersKept, Parameters
from harness.spec.run_spec import RunSpec
from harness.training.engines.activation_checkpointing import checkpoint_activations
from harness.training.engines.fused_attention import without_cudnn_attention
from harness.training.engines.packed import choose_engine
from harness.training.engines.padded import Batch, Engine
from harness.training.optimizer import make_optimizer
from harness.training.processes import SINGLE_PROCESS, Processes


@dataclass
class Trainer:
    """A model in training.

    Attributes:
        model: the composed model.
        device: the device that holds the model.
        engine: builds batches and computes their loss.
        optimizer: updates the trained parameters.
        trained: qualified name -> trained parameter.
        clip_norm: a gradient with a larger norm is scaled down to this norm.
        dtype: the precision of matrix products.
        learning_rate: the peak learning rate.
        layers_kept: the layers that the recipe kept.
        parameters: counts of the composed model's parameters.
        processes: the processes that take each step together.
    """

    model: PreTrainedModel
    device: torch.device
    engine: Engine
    optimizer: torch.optim.Optimizer
    trained: dict[str, nn.Parameter]
    clip_norm: float
    dtype: torch.dtype
    learning_rate: float
    layers_kept: LayersKept
    parameters: Parameters
    processes: Processes = SINGLE_PROCESS

    def backward(
        self,
        micro_batches: Iterable[Batch],
        target_tokens: int,
        on_pass: Callable[[str], None] = lambda part: None,
    ) -> Tensor:
        """Add the gradients of one optimizer step and return its loss.

        Args:
            micro_batches: the step's batches, on the CPU.
            target_tokens: target tokens of all micro-batches. The loss is the mean over these, so
                that neither the loss nor the gradient depends on the size of a micro-batch.
            on_pass: is called with ``forward`` or ``backward`` when that pass has been queued.

        Returns:
            The loss in nats per target token, a scalar on the device. Reading it waits for the
            device.
        """
        total = torch.zeros((), device=self.device)
        for batch in micro_batches:
            loss = self.engine.loss_sum(self.model, batch.to(self.device)) / target_tokens
            on_pass("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            on_pass("backward")
            total += loss.detach()
        return total

    def step(
        self,
        micro_batches: Iterable[Batch],
        target_tokens: int,
        check: bool = False,
        number: int = 0,
    ) -> Tensor:
        """Take one optimizer step and return its loss; see ``backward`` for both.

        Args:
            micro_batches: see ``backward``.
            target_tokens: see ``backward``.
            check: call ``check_trained`` before the update.
            number: the step's number, from 0; it keeps several processes at the same step.
        """
        backward = partial(self.backward, micro_batches, target_tokens)
        loss = self.processes.step(number, self.trained.values(), backward)
        if check:
            self.check_trained()
        self.update()
        return loss

    def update(self) -> None:
        """Clip the gradients, update the weights, and clear the gradients."""
        nn.utils.clip_grad_norm_(self.trained.values(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

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
        optimized = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        untrained = [
            name
            for name, parameter in self.trained.items()
            if id(parameter) not in optimized or parameter.grad is None
        ]
        if untrained or len(optimized) != len(self.trained):
            raise HarnessError(
                f"{len(untrained)} parameters should be trained but get no gradient or are not in "
                f"the optimizer, the first of them {untrained[:1]}.",
                "This is a mistake in a compressor of the recipe: it must set requires_grad on "
                "exactly the parameters that the loss depends on.",
            )


def load_trainer(
    backbone: Backbone, recipe: Recipe, spec: RunSpec, *, drawn_on_device: bool = False
) -> Trainer:
    """Load the backbone, apply the recipe, and build a trainer of the result.

    Seeds all global generators, so that equal specs start from equal models.

    Args:
        backbone: the backbone that the spec names.
        recipe: the recipe that the spec names.
        spec: the settings of the run.
        drawn_on_device: draw random weights on the device, which takes a second instead of a
            minute for a large model. They differ from the weights that a CPU draws.
    """
    set_seed(spec.seed)
    on_device = drawn_on_device and spec.weights == "random"
    with choose_device(spec.device) if on_device else nullcontext():
        model = backbone.load(spec.weights)
    original = count_parameters(model).total
    before = layers(model, backbone)
    model = compose(model, backbone, recipe)
    kept = kept_layers(before, layers(model, backbone))
    return build_trainer(
        model,
        backbone,
        recipe,
        spec,
        LayersKept(encoder=kept["encoder"], decoder=kept["decoder"]),
        parameters_of(model, original),
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
    backbone: Backbone,
    recipe: Recipe,
    spec: RunSpec,
    layers_kept: LayersKept,
    parameters: Parameters,
) -> Trainer:
    """Move a composed model to its device, and add an engine and an optimizer.

    Args:
        model: the composed model.
        backbone: the backbone that the model came from.
        recipe: the recipe that was applied; with an adapter it sets another learning rate.
        spec: the settings of the run.
        layers_kept: see ``Trainer``.
        parameters: see ``Trainer``.

    Raises:
        HarnessError: the device, the precision, packing or the optimizer is not available.
    """
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.train.precision, device, backbone)
    model = model.to(device)
    device = next(model.parameters()).device  # The index of the GPU included.
    engine = choose_engine(
        model,
        backbone,
        device=device,
        dtype=dtype,
        pad_token_id=model.config.pad_token_id,
        packing=spec.train.packing,
        label_smoothing=spec.train.label_smoothing,
    )
    if spec.train.checkpointing == "on":
        checkpoint_activations(model, backbone, engine.dropout_context)
    adapted = Stage.ADAPTER in recipe.stages
    rate = spec.train.adapter_learning_rate if adapted else spec.train.learning_rate
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(model, trained, spec.train, rate)
    return Trainer(
        model=model,
        device=device,
        engine=engine,
        optimizer=optimizer,
        trained=trained,
        clip_norm=spec.train.clip_norm,
        dtype=dtype,
        learning_rate=rate,
        layers_kept=layers_kept,
        parameters=parameters,
    )


NARROW = 256
"""Hidden size below which a CPU is no faster in bfloat16. With nano-t5's hidden size of 128, a step
in float32 took 0.77 to 0.88 of the time and 0.6 to 0.8 of the memory of a step in bfloat16
(``make bench``). With 256 and more, bfloat16 was faster by at least a third."""


def choose_device(requested: str) -> torch.device:
    """Return the device to train on; ``auto`` is this process's GPU if there is one, else the CPU.

    On CUDA it also turns cuDNN's attention off, see ``without_cudnn_attention``.

    Raises:
        HarnessError: CUDA was requested and is not available.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise HarnessError(
            "There is no CUDA device here.", "Leave out --set device=cuda, or --set device=cpu"
        )
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    if requested == "cuda":
        without_cudnn_attention()
    return torch.device(requested)


def choose_dtype(requested: str, device: torch.device, backbone: Backbone) -> torch.dtype:
    """Return the precision of matrix products.

    ``auto`` is bfloat16 if the device multiplies it natively and the backbone trains safely in it,
    else float32. On a CPU, narrow models are trained in float32, see ``NARROW``.

    Args:
        requested: ``auto``, ``bfloat16`` or ``float32``.
        device: the device that trains.
        backbone: names the precisions that are safe for it.

    Raises:
        HarnessError: the backbone overflows in the requested precision.
    """
    if requested != "auto":
        if requested not in backbone.safe_dtypes:
            raise HarnessError(
                f"{backbone.name} overflows in {requested}.",
                f"Safe: --set train.precision={' or '.join(sorted(backbone.safe_dtypes))}",
            )
        return torch.bfloat16 if requested == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = native and backbone.config().hidden_size >= NARROW
    return torch.bfloat16 if native and "bfloat16" in backbone.safe_dtypes else torch.float32
