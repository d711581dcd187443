"""Engines: the interface that computes a batch's loss, and the padded engine for any model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.api.backbone import Backbone, Stack
from harness.data.examples import Example
from harness.training.engines.compiled_layers import CompiledLayers
from harness.training.engines.outputs import (
    PaddedOutputs,
    TokenOutputs,
    layer_outputs,
    places,
)
from harness.training.engines.shapes import BatchShape

IGNORED = -100
"""Label of positions that carry no loss."""
STATES = "encoder_states"
"""Name, among the tensors of a batch, of the encoder's stored outputs: a row for each source token.
A forward pass reads them if they are there, and computes no encoder."""


@dataclass(frozen=True)
class Batch:
    """The tensors of a micro-batch, and their size.

    Attributes:
        tensors: the input of the engine's ``loss_sum``, on one device: integers, and what was
            computed before training.
        source_tokens: tokens of the sources, without padding.
        target_tokens: tokens that carry loss.
        examples: number of examples.
        filler: whether the loss does not count; see ``Processes.share``.
        shape: the shape that packed rows are filled up to by one more sequence, if they are; its
            labels carry no loss.
    """

    tensors: dict[str, Tensor]
    source_tokens: int
    target_tokens: int
    examples: int
    filler: bool = field(default=False, kw_only=True)
    shape: BatchShape | None = field(default=None, kw_only=True)

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device without waiting for the copy, and return it."""
        moved = {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}
        return replace(self, tensors=moved)

    def encoded(self, model: PreTrainedModel) -> Tensor:
        """Return what a model's encoder computes of the sources, a row for each source token."""
        ids, mask = self.tensors["input_ids"], self.tensors["attention_mask"]
        states: Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask)[0]
        return states.flatten(0, 1).index_select(0, places(mask != 0))


BatchT = TypeVar("BatchT", bound=Batch)


def pinned(tensors: dict[str, Tensor], device_type: str) -> dict[str, Tensor]:
    """Return the tensors in pinned memory on CUDA, from where they are copied asynchronously."""
    if device_type != "cuda":
        return tensors
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}


FurtherTensors = Callable[[Sequence[Example]], dict[str, Tensor]]
"""Returns what was computed before training for some examples: name -> tensor."""


class Engine(ABC):
    """Turns examples into batches, and a batch into a loss.

    Attributes:
        name: the engine's name in the report.
    """

    name: ClassVar[str]
    further: FurtherTensors | None = None
    """Returns further tensors for the batch of some examples."""
    compiled: CompiledLayers | None = None
    """The layers if they are compiled, or were to be and are not."""

    def completed(self, batch: BatchT, examples: Sequence[Example], device_type: str) -> BatchT:
        """Return a batch with the further tensors of its examples, if there are any."""
        if self.further is None:
            return batch
        tensors = batch.tensors | pinned(self.further(examples), device_type)
        return replace(batch, tensors=tensors)

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Build a batch on the CPU; it may be called in another thread."""

    @abstractmethod
    def forward(
        self, model: PreTrainedModel, batch: Batch, hidden_states: bool = False
    ) -> TokenOutputs:
        """Return the outputs of a batch.

        Args:
            model: the model, patched for this engine.
            batch: a batch of this engine, on the model's device.
            hidden_states: also collect the states after each layer.
        """

    def encode(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the encoder's outputs, shape (source tokens, width), without padding.

        See ``forward`` for the arguments.
        """
        with self._autocast():
            return batch.encoded(model)

    @abstractmethod
    def _autocast(self) -> AbstractContextManager[object]:
        """Return the context in which products have this engine's precision."""

    def loss_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the summed negative log-likelihood of the targets in nats, a float32 scalar.

        With label smoothing it is the cross-entropy to the smoothed targets.

        It is a sum and not a mean, so that the trainer can divide it by the tokens of a whole
        optimizer step: the gradient must not depend on the size of a micro-batch.
        """
        return self.forward(model, batch).cross_entropy

    def attention(self, model: PreTrainedModel) -> str:
        """Name the attention implementation that a patched model trains with, for the report."""
        name: str = model.config._attn_implementation
        return name

    def dropout_context(self) -> AbstractContextManager[object]:
        """Return the context that this engine's dropout needs around each forward pass."""
        return nullcontext()

    def patch(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Change the model in place for this engine's forward pass; a second call does nothing."""

    def unpatch(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Undo ``patch``, so that generating, merging and saving work as on any model."""

    @contextmanager
    def unpatched(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Undo ``patch`` in the context."""
        self.unpatch(model)
        try:
            yield model
        finally:
            self.patch(model)


class PaddedEngine(Engine):
    """Pads every sequence to the longest of its batch; works for any encoder-decoder.

    Args:
        pad_token_id: fills the sources.
        dtype: the precision of matrix products; with bfloat16 they run under autocast.
        device_type: ``cpu`` or ``cuda``.
        multiple: pads lengths up to a multiple of this, for tensor cores (8 in the paper).
        label_smoothing: see ``harness.spec.setting_groups.TrainSettings``.
        backbone: finds the model's layers; only states after each layer need it.
    """

    name = "padded"

    def __init__(
        self,
        pad_token_id: int,
        dtype: torch.dtype,
        device_type: str,
        multiple: int = 1,
        label_smoothing: float = 0.0,
        backbone: Backbone | None = None,
    ) -> None:
        self.backbone = backbone
        self.pad_token_id = pad_token_id
        self.dtype = dtype
        self.device_type = device_type
        self.multiple = multiple
        self.label_smoothing = label_smoothing

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Build a batch with sources and labels padded on the right."""
        sources = _pad([e.source for e in examples], self.pad_token_id, self.multiple)
        labels = _pad([e.target for e in examples], IGNORED, self.multiple)
        lengths = torch.tensor([len(e.source) for e in examples])
        mask = (torch.arange(sources.shape[1]) < lengths[:, None]).long()
        tensors = {"input_ids": sources, "attention_mask": mask, "labels": labels}
        batch = Batch(
            pinned(tensors, self.device_type),
            source_tokens=int(lengths.sum()),
            target_tokens=sum(len(e.target) for e in examples),
            examples=len(examples),
        )
        return self.completed(batch, examples, self.device_type)

    def forward(
        self, model: PreTrainedModel, batch: Batch, hidden_states: bool = False
    ) -> PaddedOutputs:
        """Return the outputs for all positions that are not padding."""
        labels = batch.tensors["labels"]
        with self._autocast(), self._layer_outputs(model, hidden_states) as hidden:
            logits = model(
                **self._source(batch),
                attention_mask=batch.tensors["attention_mask"],
                decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=labels),
                use_cache=False,
            ).logits
        outputs = PaddedOutputs(logits, labels, IGNORED, self.label_smoothing)
        if hidden_states:
            real = {"encoder": batch.tensors["attention_mask"] != 0, "decoder": labels != IGNORED}
            outputs.add(
                {
                    stack: [x.flatten(0, 1).index_select(0, places(real[stack])) for x in states]
                    for stack, states in hidden.items()
                }
            )
        return outputs

    def _source(self, batch: Batch) -> dict[str, Any]:
        """Return the ids of the sources, or the encoder's stored outputs with zeros at padding."""
        states, ids = batch.tensors.get(STATES), batch.tensors["input_ids"]
        if states is None:
            return {"input_ids": ids}
        padded = states.new_zeros(ids.numel(), states.shape[1], dtype=self.dtype)
        real = places(batch.tensors["attention_mask"] != 0)
        padded = padded.index_copy(0, real, states.to(self.dtype))
        return {"encoder_outputs": (padded.view(*ids.shape, -1),)}

    def _layer_outputs(
        self, model: PreTrainedModel, wanted: bool
    ) -> AbstractContextManager[dict[Stack, list[Tensor]]]:
        if not wanted or self.backbone is None:
            return nullcontext({})
        return layer_outputs(model, self.backbone, wanted)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device_type, self.dtype)


def _pad(rows: Sequence[Sequence[int]], value: int, multiple: int) -> Tensor:
    longest = max(map(len, rows))
    width = -(-longest // multiple) * multiple
    padded = torch.full((len(rows), width), value, dtype=torch.long)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return padded
