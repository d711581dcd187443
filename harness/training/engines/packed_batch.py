"""Packed batches: the sequences of a micro-batch laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedModel

from harness.data.examples import Example
from harness.training.engines.padded import IGNORED, STATES, Batch, pinned
from harness.training.engines.rows import Packed, PackedRow
from harness.training.engines.shapes import BatchShape, RowShape


@dataclass(frozen=True)
class PackedBatch(Batch):
    """A batch as two packed rows: one for the encoder, one for the decoder.

    Attributes:
        source_lengths: tokens of each sequence in the encoder's row.
        target_lengths: tokens of each sequence in the decoder's row.
    """

    source_lengths: tuple[int, ...]
    target_lengths: tuple[int, ...]

    @property
    def packed(self) -> Packed:
        """Lengths, positions and offsets of the sequences in both rows."""

        def row(side: str, lengths: tuple[int, ...], shape: RowShape | None) -> PackedRow:
            positions, offsets = self.tensors[f"{side}_positions"], self.tensors[f"{side}_offsets"]
            return PackedRow(lengths, positions, offsets, shape.longest if shape else 0)

        shape = self.shape
        return Packed(
            row("source", self.source_lengths, shape.source if shape else None),
            row("target", self.target_lengths, shape.target if shape else None),
        )

    def source(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return what a model computes the sources from: their ids, or the encoder's outputs.

        Args:
            dtype: the precision of matrix products, in which stored outputs are given.
        """
        states = self.tensors.get(STATES)
        if states is None:
            return {"input_ids": self.tensors["input_ids"][None]}
        return {"encoder_outputs": (states[None].to(dtype),)}

    def encoded(self, model: PreTrainedModel) -> Tensor:
        """Return what a model's encoder computes of the sources, a row for each source token."""
        ids = self.tensors["input_ids"][None]
        states: Tensor = model.get_encoder()(input_ids=ids, packed=self.packed)[0]
        return states.squeeze(0)

    def with_filled_states(self) -> PackedBatch:
        """Return the batch with a row of the encoder's stored outputs, if any, for each filler."""
        states = self.tensors.get(STATES)
        missing = 0 if states is None else sum(self.source_lengths) - len(states)
        if states is None or not missing:
            return self
        filled = F.pad(states, (0, 0, 0, missing))
        filled = filled.pin_memory() if states.is_pinned() else filled
        return replace(self, tensors={**self.tensors, STATES: filled})


def packed_batch(
    examples: Sequence[Example],
    start_token_id: int,
    device_type: str,
    shape: BatchShape | None = None,
) -> PackedBatch:
    """Lay the sequences of some examples end to end.

    Args:
        examples: the examples of a micro-batch.
        start_token_id: the decoder's input before the first target token.
        device_type: ``cpu`` or ``cuda``, for which the tensors are pinned.
        shape: a shape that holds the examples; one more sequence, whose labels carry no loss, fills
            both rows up to it.
    """
    sources, targets = [e.source for e in examples], [e.target for e in examples]
    shifted = [[start_token_id, *target[:-1]] for target in targets]
    labels: list[Sequence[int]] = [*targets]
    source_tokens, target_tokens = sum(map(len, sources)), sum(map(len, targets))
    if shape:
        sources = [*sources, [start_token_id] * (shape.source.tokens - source_tokens)]
        rest = shape.target.tokens - target_tokens
        shifted.append([start_token_id] * rest)
        labels.append([IGNORED] * rest)
    source_lengths, target_lengths = tuple(map(len, sources)), tuple(map(len, labels))
    tensors = {
        "input_ids": _row(sources),
        "source_positions": _positions(source_lengths, filled=shape is not None),
        "source_offsets": _offsets(source_lengths),
        "decoder_input_ids": _row(shifted),
        "target_positions": _positions(target_lengths, filled=shape is not None),
        "target_offsets": _offsets(target_lengths),
        "labels": _row(labels),
    }
    return PackedBatch(
        pinned(tensors, device_type),
        source_tokens=source_tokens,
        target_tokens=target_tokens,
        examples=len(examples),
        source_lengths=source_lengths,
        target_lengths=target_lengths,
        shape=shape,
    )


def _row(sequences: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([item for sequence in sequences for item in sequence])


def _positions(lengths: Sequence[int], filled: bool) -> Tensor:
    # A filler may be longer than the backbone has learned positions for.
    *first, last = (range(n) for n in lengths)
    return _row([*first, [0] * len(last) if filled else last])


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32)
