"""Batches without padding: the engine that trains on packed rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone, Role
from harness.data.examples import Example
from harness.errors import HarnessError
from harness.training.engines.attention import kernels, patch_attention
from harness.training.engines.dropout import PackedMaskDropout
from harness.training.engines.feed_forward import patch_t5_feed_forwards
from harness.training.engines.lora_linear import patch_lora
from harness.training.engines.loss import chunked_cross_entropy
from harness.training.engines.norm import patch_t5_norms
from harness.training.engines.padded import Batch, Engine, PaddedEngine, pinned
from harness.training.engines.precision import frozen_weights_in
from harness.training.engines.rounded_weights import WeightGroup, round_together
from harness.training.engines.rows import Packed, PackedRow


@dataclass(frozen=True)
class PackedBatch(Batch):
    """A batch as two rows, one a stack.

    Attributes:
        source_lengths: of the sequences in the encoder's row.
        target_lengths: of the sequences in the decoder's row.
    """

    source_lengths: tuple[int, ...]
    target_lengths: tuple[int, ...]

    @property
    def packed(self) -> Packed:
        """Where the sequences lie."""

        def row(side: str, lengths: tuple[int, ...]) -> PackedRow:
            return PackedRow(
                lengths, self.tensors[f"{side}_positions"], self.tensors[f"{side}_offsets"]
            )

        return Packed(row("source", self.source_lengths), row("target", self.target_lengths))


class PackedEngine(Engine):
    """Lays sequences end to end; each part of a step costs what the tokens in it cost.

    Args:
        backbone: says how positions restart.
        start_token_id: what the decoder is given before the first target token.
        dtype: of matrix products.
        device: where the model is.
        label_smoothing: see ``harness.spec.run_spec.TrainSettings``.
    """

    name = "packed"

    def __init__(
        self,
        backbone: Backbone,
        start_token_id: int,
        dtype: torch.dtype,
        device: torch.device,
        label_smoothing: float = 0.0,
    ) -> None:
        self.backbone = backbone
        self.start_token_id = start_token_id
        self.dtype = dtype
        self.device = device
        self.label_smoothing = label_smoothing
        self._changes: ExitStack | None = None
        self._head_weight: Tensor | None = None
        self._groups: list[WeightGroup] = []

    def patch(self, model: PreTrainedModel) -> None:
        """Change how the model computes; its modules, parameters and their names stay."""
        if self._changes is not None:
            return
        with ExitStack() as changes:
            for handle in self.backbone.restart_positions(model) or ():
                changes.callback(handle.remove)
            changes.enter_context(patch_attention(model))
            changes.enter_context(frozen_weights_in(model, self.dtype))
            changes.enter_context(patch_lora(model))
            changes.enter_context(patch_t5_norms(model))
            changes.enter_context(patch_t5_feed_forwards(model))
            layers = [x for stack in STACKS for x in self.backbone.layers(model, stack)]
            same_input = _with_same_input(model, self.backbone)
            self._groups, undo = round_together(layers, self.dtype, same_input)
            changes.enter_context(undo)
            weight = model.get_output_embeddings().weight
            if not weight.requires_grad:
                # Rounded once: a head that is also the embedding is stored in float32.
                self._head_weight = weight.detach().to(self.dtype)
            self._changes = changes.pop_all()

    def unpatch(self, model: PreTrainedModel) -> None:
        """Undo ``patch``; frozen weights are float32 again, rounded to what was trained with."""
        if self._changes is not None:
            self._changes.close()
        self._changes = self._head_weight = None
        self._groups = []

    def collate(self, examples: Sequence[Example]) -> PackedBatch:
        """Lay the sequences end to end."""
        sources = tuple(len(e.source) for e in examples)
        targets = tuple(len(e.target) for e in examples)
        shifted = [[self.start_token_id, *e.target[:-1]] for e in examples]
        tensors = {
            "input_ids": _row([e.source for e in examples]),
            "source_positions": _row([range(n) for n in sources]),
            "source_offsets": _offsets(sources),
            "decoder_input_ids": _row(shifted),
            "target_positions": _row([range(n) for n in targets]),
            "target_offsets": _offsets(targets),
            "labels": _row([e.target for e in examples]),
        }
        return PackedBatch(
            pinned(tensors, self.device.type),
            source_tokens=sum(sources),
            target_tokens=sum(targets),
            examples=len(examples),
            source_lengths=sources,
            target_lengths=targets,
        )

    def loss_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Sum over all target tokens; the LM head runs in chunks, outside the model."""
        assert isinstance(batch, PackedBatch)
        head = model.get_output_embeddings()
        tensors = batch.tensors
        for group in self._groups:
            group.forget()
        with self._autocast(), self.dropout_context(), _input_of(head) as caught:
            model(
                input_ids=tensors["input_ids"][None],
                decoder_input_ids=tensors["decoder_input_ids"][None],
                use_cache=False,
                packed=batch.packed,
            )
        (states,) = caught
        weight = head.weight if self._head_weight is None else self._head_weight
        states = states.squeeze(0).to(self.dtype)
        return chunked_cross_entropy(
            states, weight, _head_bias(model, head), tensors["labels"], self.label_smoothing
        )

    def attention(self, model: PreTrainedModel) -> str:
        """Name the kernels, which differ by device and precision."""
        return kernels(self.device, self.dtype)

    def dropout_context(self) -> AbstractContextManager[object]:
        """Draw masks the cheap way, where that is faster."""
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
) -> Engine:
    """Return the engine that suits a composed model, with the model prepared for it.

    Args:
        model: composed, on its device. An engine that it was prepared for before is released.
        backbone: says whether its sequences can be packed.
        device: where the model is.
        dtype: of matrix products.
        pad_token_id: fills padded batches.
        packing: ``auto`` packs where the backbone can, ``on`` insists.
        label_smoothing: see ``harness.spec.run_spec.TrainSettings``.

    Raises:
        HarnessError: packing is insisted on, and the backbone cannot.
    """
    if model in _prepared:
        _prepared.pop(model).unpatch(model)
    obstacle = _obstacle(model, backbone)
    if packing == "on" and obstacle:
        raise HarnessError(
            f"The sequences of {backbone.name} cannot be packed: {obstacle}.",
            "Leave --set train.packing=on out; batches are then padded.",
        )
    if packing == "off" or obstacle:
        return PaddedEngine(pad_token_id, dtype, device.type, label_smoothing=label_smoothing)
    start = model.config.decoder_start_token_id
    engine = PackedEngine(backbone, start, dtype, device, label_smoothing)
    engine.patch(model)
    _prepared[model] = engine
    return engine


_prepared: WeakKeyDictionary[PreTrainedModel, PackedEngine] = WeakKeyDictionary()


def _obstacle(model: PreTrainedModel, backbone: Backbone) -> str | None:
    """Return why sequences cannot be packed."""
    if type(model.get_output_embeddings()) is not nn.Linear:
        return "a compressor has changed the LM head"
    hooks = backbone.restart_positions(model)
    if hooks is None:
        return "it does not say how their positions restart"
    for hook in hooks:
        hook.remove()
    return None


def _with_same_input(model: PreTrainedModel, backbone: Backbone) -> list[tuple[nn.Module, ...]]:
    """Return the modules of each attention that project the same states."""
    together: tuple[tuple[Role, ...], ...] = (
        ("self_attn.q", "self_attn.k", "self_attn.v"),
        ("cross_attn.k", "cross_attn.v"),
    )
    return [
        modules
        for roles in together
        for modules in zip(*(backbone.modules(model, r).values() for r in roles), strict=False)
    ]


def _row(sequences: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([item for sequence in sequences for item in sequence])


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32)


@contextmanager
def _input_of(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Catch what the LM head is given, and let it compute nothing."""
    caught: list[Tensor] = []

    def catch(states: Tensor) -> Tensor:
        caught.append(states)
        return states.new_empty(1, 0, head.out_features)

    head.forward = catch  # type: ignore[method-assign, assignment]
    try:
        yield caught
    finally:
        del head.forward


def _head_bias(model: PreTrainedModel, head: nn.Linear) -> Tensor | None:
    # BART holds a bias of the logits beside its LM head, as a buffer of shape (1, vocabulary).
    beside: Tensor | None = getattr(model, "final_logits_bias", None)
    parts = [part.flatten() for part in (head.bias, beside) if part is not None]
    return sum(parts[1:], parts[0]) if parts else None
