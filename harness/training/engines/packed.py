"""The engine that trains on packed rows: batches without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone
from harness.data.examples import Example
from harness.errors import HarnessError
from harness.training.engines.attention import biased_width, kernels, patch_attention
from harness.training.engines.biased_attention import takes_bias
from harness.training.engines.dropout import PackedMaskDropout
from harness.training.engines.feed_forward import patch_t5_feed_forwards
from harness.training.engines.fused_attention import takes_rows
from harness.training.engines.lora_linear import patch_lora
from harness.training.engines.loss import head_in
from harness.training.engines.norm import patch_t5_norms
from harness.training.engines.outputs import PackedOutputs, layer_outputs
from harness.training.engines.packed_batch import PackedBatch, packed_batch
from harness.training.engines.padded import Batch, Engine, PaddedEngine
from harness.training.engines.precision import KeptWeights, frozen_weights_in
from harness.training.engines.rounded_weights import (
    WeightGroup,
    round_together,
    with_same_input,
)
from harness.training.engines.shapes import Shapes, size_of


class PackedEngine(Engine):
    """Lays sequences end to end, so that a step's cost depends on its tokens and not on padding.

    Args:
        backbone: restarts positions at the beginning of each sequence.
        start_token_id: the decoder's input before the first target token.
        dtype: the precision of matrix products.
        device: the device that holds the model.
        label_smoothing: see ``harness.spec.setting_groups.TrainSettings``.
        sharded: whether the weights of the model are shards, which are gathered layer by layer in
            the precision of the products. No copy of a weight is then made or kept.
    """

    name = "packed"

    def __init__(
        self,
        backbone: Backbone,
        start_token_id: int,
        dtype: torch.dtype,
        device: torch.device,
        label_smoothing: float = 0.0,
        sharded: bool = False,
    ) -> None:
        self.backbone = backbone
        self.sharded = sharded
        self.start_token_id = start_token_id
        self.dtype = dtype
        self.device = device
        self.label_smoothing = label_smoothing
        self.shapes: Shapes | None = None
        """The shapes that batches are filled up to; None leaves them as they are."""
        self._kept: KeptWeights = {}
        self._keeps_weights = False
        self._changes: ExitStack | None = None
        self._head_weight: Tensor | None = None
        self._groups: list[WeightGroup] = []

    def patch(self, model: PreTrainedModel) -> None:
        """Replace forward passes of the model; its modules, parameters and their names stay."""
        if self._changes is not None:
            return
        with ExitStack() as changes:
            for handle in self.backbone.restart_positions(model) or ():
                changes.callback(handle.remove)
            changes.enter_context(patch_attention(model))
            if not self.sharded:
                kept = self._kept if self._keeps_weights else None
                changes.enter_context(frozen_weights_in(model, self.dtype, kept))
            changes.enter_context(patch_lora(model))
            changes.enter_context(patch_t5_norms(model))
            changes.enter_context(patch_t5_feed_forwards(model))
            if not self.sharded:
                changes.enter_context(self._round_weights(model))
            if self.compiled is not None:
                changes.enter_context(self.compiled.patch(model, self.backbone))
            self._changes = changes.pop_all()

    def _round_weights(self, model: PreTrainedModel) -> ExitStack:
        """Round trained weights in groups unless a compiler does, and a frozen LM head once."""
        stacks = () if self.compiled and self.compiled.obstacle is None else STACKS
        layers = [x for stack in stacks for x in self.backbone.layers(model, stack)]
        shared = with_same_input(model, self.backbone)
        self._groups, undo = round_together(layers, self.dtype, shared)
        head, kept = model.get_output_embeddings(), self._head_weight
        self._head_weight = _rounded_head(head, self.dtype, kept if self._keeps_weights else None)
        return undo

    def unpatch(self, model: PreTrainedModel) -> None:
        """Undo ``patch``; frozen weights are float32 again, with the values used in training."""
        if self._changes is not None:
            self._changes.close()
        self._changes, self._groups = None, []
        self._head_weight = self._head_weight if self._keeps_weights else None

    def forget_weights(self) -> None:
        """Free the weights that an unpatched model has kept in place; they are kept no longer."""
        self._kept, self._keeps_weights, self._head_weight = {}, False, None

    def keep_weights_in_place(self, model: PreTrainedModel) -> None:
        """Let the stored weights of a patched model keep their addresses from now on.

        A CUDA graph reads them there. They stay in memory while the model is not patched.
        """
        self.unpatch(model)
        self._keeps_weights = True
        self.patch(model)

    def collate(self, examples: Sequence[Example]) -> PackedBatch:
        """Lay the sequences end to end, and fill them up to a shape if one holds them."""
        shape = self.shapes.fitting(size_of(examples)) if self.shapes else None
        batch = packed_batch(examples, self.start_token_id, self.device.type, shape)
        return self.completed(batch, examples, self.device.type).with_filled_states()

    def forward(
        self, model: PreTrainedModel, batch: Batch, hidden_states: bool = False
    ) -> PackedOutputs:
        """Return the outputs for all tokens; the LM head is applied in chunks."""
        assert isinstance(batch, PackedBatch)
        head = model.get_output_embeddings()
        tensors = batch.tensors
        for group in self._groups:
            group.forget()
        with (
            self._autocast(),
            self.dropout_context(),
            _head_inputs(head) as inputs,
            layer_outputs(model, self.backbone, hidden_states) as hidden,
        ):
            model(
                **batch.source(self.dtype),
                decoder_input_ids=tensors["decoder_input_ids"][None],
                use_cache=False,
                packed=batch.packed,
            )
        (states,) = inputs
        weight = head.weight if self._head_weight is None else self._head_weight
        states = states.squeeze(0).to(self.dtype)
        outputs = PackedOutputs(
            states,
            weight,
            _head_bias(model, head),
            tensors["labels"],
            self.label_smoothing,
            ignores=batch.shape is not None,
            vocabulary=head.out_features,
        )
        if hidden_states:
            outputs.add({stack: [x.squeeze(0) for x in hidden[stack]] for stack in STACKS})
        return outputs

    def attends_to_rows(self, model: PreTrainedModel) -> bool:
        """Return whether attention takes packed rows; otherwise it pads to a bound of lengths."""
        width = biased_width(model)
        return takes_rows(self.dtype, self.device) and (
            width is None or takes_bias(self.dtype, self.device, width)
        )

    def attention(self, model: PreTrainedModel) -> str:
        """Name the kernels, which differ by device and precision."""
        return kernels(self.device, self.dtype, biased_width(model) or 64)

    def dropout_context(self) -> AbstractContextManager[object]:
        """Return a context that draws masks with ``PackedMaskDropout`` on a CPU."""
        return PackedMaskDropout() if self.device.type == "cpu" else nullcontext()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def choose_engine(
    model: PreTrainedModel,
    backbone: Backbone,
    *,
    device: torch.device,
    dtype: torch.dtype,
    pad_token_id: int,
    packing: Literal["auto", "on", "off"],
    label_smoothing: float = 0.0,
    sharded: bool = False,
) -> Engine:
    """Return the engine for a composed model, and patch the model for it.

    Args:
        model: the composed model, on its device. Patches of an earlier engine are undone.
        backbone: tells whether its sequences can be packed.
        device: the device that holds the model.
        dtype: the precision of matrix products.
        pad_token_id: fills padded batches.
        packing: ``auto`` packs if possible, ``on`` fails if it is not, ``off`` pads.
        label_smoothing: see ``harness.spec.setting_groups.TrainSettings``.
        sharded: see ``PackedEngine``.

    Raises:
        HarnessError: ``packing`` is ``on`` and the sequences cannot be packed.
    """
    if _ENGINE in vars(model):
        vars(model).pop(_ENGINE).unpatch(model)
    obstacle = packing_obstacle(model, backbone)
    if packing == "on" and obstacle:
        raise HarnessError(
            f"The sequences of {backbone.name} cannot be packed: {obstacle}.",
            "Leave out --set train.engine=...; batches are then padded.",
        )
    if packing == "off" or obstacle:
        return PaddedEngine(
            pad_token_id, dtype, device.type, label_smoothing=label_smoothing, backbone=backbone
        )
    start = model.config.decoder_start_token_id
    engine = PackedEngine(backbone, start, dtype, device, label_smoothing, sharded)
    engine.patch(model)
    vars(model)[_ENGINE] = engine
    return engine


_ENGINE = "packed_engine"
"""Attribute of a patched model. The engine refers to the model, so that a table of engines would
keep every model of the process in memory."""


def packing_obstacle(model: PreTrainedModel, backbone: Backbone) -> str | None:
    """Return the reason why sequences cannot be packed, or None if they can."""
    if type(model.get_output_embeddings()) is not nn.Linear:
        return "a compressor has changed the LM head"
    hooks = backbone.restart_positions(model)
    if hooks is None:
        return "the backbone does not restart positions within a row"
    for hook in hooks:
        hook.remove()
    return None


@contextmanager
def _head_inputs(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Collect the inputs of the LM head in the context; the head itself computes nothing."""
    inputs: list[Tensor] = []

    def collect(states: Tensor) -> Tensor:
        inputs.append(states)
        return states.new_empty(1, 0, head.out_features)

    head.forward = collect  # type: ignore[method-assign, assignment]
    try:
        yield inputs
    finally:
        del head.forward


def _rounded_head(head: nn.Linear, dtype: torch.dtype, kept: Tensor | None) -> Tensor | None:
    """Return a frozen LM head's weight in low precision, where it was kept; None if it is trained.

    It is rounded once, since a head that is also the embedding is stored in float32.
    """
    if head.weight.requires_grad:
        return None
    rounded = head_in(head.weight.detach(), dtype)
    return rounded if kept is None else kept.copy_(rounded)


def _head_bias(model: PreTrainedModel, head: nn.Linear) -> Tensor | None:
    # BART keeps a bias of the logits outside its LM head, as a buffer of shape (1, vocabulary).
    logits_bias: Tensor | None = getattr(model, "final_logits_bias", None)
    biases = [bias.flatten() for bias in (head.bias, logits_bias) if bias is not None]
    return sum(biases[1:], biases[0]) if biases else None
