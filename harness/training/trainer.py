"""A model made ready for training: composed, on its device, with engine and optimizer."""

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
        device: where the model is.
        engine: how batches go through the model.
        optimizer: over the trained parameters.
        trained: qualified name -> trained parameter.
        clip_norm: gradients of a larger norm are scaled down to it.
        dtype: what matrix products are computed in.
        learning_rate: the peak.
        layers_kept: of the composed model.
        parameters: of the composed model.
        processes: that take each step together.
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
            micro_batches: on the CPU, one after another.
            target_tokens: of all of them together; the loss is the mean over these, so that
                neither it nor the gradient depends on how the step is cut.
            on_pass: told when a forward or a backward pass has been queued.

        Returns:
            Nats per target token, a scalar that is still on the device: reading it would wait.
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
        """Take one optimizer step; see ``backward`` for the arguments and what is returned.

        Args:
            check: make sure that what is counted as trained is what is trained.
            number: of the step, from 0, by which several processes keep together.
        """
        backward = partial(self.backward, micro_batches, target_tokens)
        loss = self.processes.step(number, self.trained.values(), backward)
        if check:
            self.check_trained()
        self.update()
        return loss

    def update(self) -> None:
        """Clip the gradients, let the optimizer use them, and drop them."""
        nn.utils.clip_grad_norm_(self.trained.values(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @contextmanager
    def unpatched(self) -> Iterator[PreTrainedModel]:
        """Give the model out as any other, to generate with or to save; then take it back."""
        self.engine.unpatch(self.model)
        try:
            yield self.model
        finally:
            self.engine.patch(self.model)

    def check_trained(self) -> None:
        """Assert that what requires a gradient is what the optimizer holds and what got one.

        To be called between ``backward`` and the optimizer's step.

        Raises:
            HarnessError: otherwise; the reported number of trained parameters would be wrong.
        """
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        strays = [
            name
            for name, parameter in self.trained.items()
            if id(parameter) not in held or parameter.grad is None
        ]
        if strays or len(held) != len(self.trained):
            raise HarnessError(
                f"{len(strays)} parameters should be trained but get no gradient or are not in "
                f"the optimizer, the first of them {strays[:1]}.",
                "This is a mistake in a compressor of the recipe: it must set requires_grad on "
                "exactly the parameters that the loss depends on.",
            )


def load_trainer(
    backbone: Backbone, recipe: Recipe, spec: RunSpec, *, drawn_on_device: bool = False
) -> Trainer:
    """Load the backbone, apply the recipe, and make the result ready for training.

    Seeds all global generators, so that equal specs start from equal models.

    Args:
        backbone: the spec's.
        recipe: the spec's.
        spec: the settings.
        drawn_on_device: random weights are drawn on the device, where a large model takes a second
            and not a minute. They are not those that a CPU draws.
    """
    set_seed(spec.seed)
    there = drawn_on_device and spec.weights == "random"
    with choose_device(spec.device) if there else nullcontext():
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
        model: after ``compose``.
        original: parameters of the backbone as published.
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
    """Put a composed model on its device, with an engine and an optimizer; see ``Trainer``."""
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.train.precision, device, backbone)
    model = model.to(device)
    device = next(model.parameters()).device  # With the number of the GPU.
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
"""Hidden units below which a CPU is no faster in bfloat16: with nano-t5's 128 a step in float32
took 0.77 to 0.88 of the time, and 0.6 to 0.8 of the memory, of one in bfloat16 (``make bench``).
With 256 and more bfloat16 was faster, by a third at least."""


def choose_device(requested: str) -> torch.device:
    """Return the device to train on; ``auto`` is the GPU that this process uses, if there is one.

    On CUDA it also turns cuDNN's attention off, see ``without_cudnn_attention``.

    Raises:
        HarnessError: CUDA was requested and is not there.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise HarnessError(
            "There is no CUDA device here.", "Leave --set device=cuda out, or set device=cpu"
        )
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    if requested == "cuda":
        without_cudnn_attention()
    return torch.device(requested)


def choose_dtype(requested: str, device: torch.device, backbone: Backbone) -> torch.dtype:
    """Return what matrix products are computed in.

    ``auto`` is bfloat16 where the device multiplies it natively and the backbone trains safely
    in it, else float32; and float32 for narrow models on a CPU, see ``NARROW``.
    """
    if requested != "auto":
        if requested not in backbone.safe_dtypes:
            raise HarnessError(
                f"{backbone.name} overflows in {requested}.",
                f"Safe: {', '.join(sorted(backbone.safe_dtypes))}.",
            )
        return torch.bfloat16 if requested == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = native and backbone.config().hidden_size >= NARROW
    return torch.bfloat16 if native and "bfloat16" in backbone.safe_dtypes else torch.float32
