"""Outputs of a forward pass: logits in chunks, and states after each layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from harness.api.backbone import STACKS, Backbone, Stack
from harness.api.outputs import Outputs
from harness.training.engines.loss import chunk_rows, chunked_cross_entropy, head_in


class TokenOutputs(Outputs):
    """Outputs whose logits can be computed for some tokens at a time."""

    def add(
        self,
        hidden: Mapping[Stack, list[Tensor]] | None = None,
        layers: Mapping[Stack, list[int]] | None = None,
        teacher: Outputs | None = None,
        top: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add what compressors need: states after each layer, or the outputs of a teacher.

        Args:
            hidden: stack -> the states after each layer.
            layers: stack -> numbers of these layers in the backbone, from 1.
            teacher: the outputs of the teacher.
            top: token ids and logits that the teacher computed before training.
        """
        self._top = top or self._top
        self._layers = dict(layers) if layers is not None else self._layers
        self._hidden = dict(hidden) if hidden is not None else self._hidden
        self._teacher = teacher or self._teacher

    @abstractmethod
    def logits(self, rows: slice) -> Tensor:
        """Return the logits of some target tokens, in float32."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of tokens whose logits are computed at a time."""

    def sum_over_logits(self, function: Callable[..., Tensor], *others: Outputs | Tensor) -> Tensor:
        """Return the sum of a function of the logits; see the interface."""

        def chunk(rows: slice) -> Tensor:
            parts = [o.logits(rows) if isinstance(o, TokenOutputs) else o[rows] for o in others]  # type: ignore[index]
            return function(self.logits(rows), *parts)

        total = self.labels.new_zeros((), dtype=torch.float32)
        for start in range(0, len(self.labels), self.rows):
            rows = slice(start, start + self.rows)
            total = total + checkpoint(chunk, rows, use_reentrant=False)
        return total


class PackedOutputs(TokenOutputs):
    """Outputs of a packed row: the inputs of the LM head, which is applied to chunks.

    Args:
        states: the inputs of the LM head, shape (target tokens, width).
        weight: the weight of the LM head; it may have more rows than the vocabulary.
        bias: the bias of the logits, or None.
        labels: token ids of the targets.
        label_smoothing: see ``harness.spec.setting_groups.TrainSettings``.
        ignores: whether negative labels carry no loss; otherwise there are none.
        vocabulary: number of logits of a token; by default the rows of the weight.
    """

    def __init__(
        self,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        label_smoothing: float,
        ignores: bool = False,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        self._labels, self._ignores = labels, ignores
        self._vocabulary = len(weight) if vocabulary is None else vocabulary
        self._states, self._weight, self._bias = states, weight, bias
        self._label_smoothing = label_smoothing

    @property
    def labels(self) -> Tensor:
        """The token ids of the targets."""
        return self._labels

    @cached_property
    def cross_entropy(self) -> Tensor:
        """The loss without additions."""
        return chunked_cross_entropy(
            self._states,
            self._weight,
            self._bias,
            self._labels,
            self._label_smoothing,
            self._ignores,
            self._vocabulary,
        )

    def logits(self, rows: slice) -> Tensor:
        """Apply the LM head to some tokens."""
        states = self._states[rows]
        weight = self._weight
        if len(weight) == self._vocabulary:
            weight = head_in(weight, states.dtype)
        logits = F.linear(states, weight)[:, : self._vocabulary].float()
        return logits if self._bias is None else logits + self._bias

    @property
    def rows(self) -> int:
        """Number of tokens whose logits are computed at a time."""
        least = self._weight.shape[1] if self._weight.requires_grad else 1
        return chunk_rows(len(self.labels), self._vocabulary, least)


class PaddedOutputs(TokenOutputs):
    """Outputs of a padded batch, whose logits are all computed.

    Args:
        logits: shape (examples, longest target, vocabulary).
        labels: token ids of the targets, with ``ignored`` at padding; shape (examples, longest).
        ignored: label of positions without loss.
        label_smoothing: see ``harness.spec.setting_groups.TrainSettings``.
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, ignored: int, label_smoothing: float
    ) -> None:
        super().__init__()
        self._all, self._padded, self._ignored = logits, labels, ignored
        self._label_smoothing = label_smoothing

    @cached_property
    def _places(self) -> Tensor:
        # Only when it is needed: on a GPU it waits for the device.
        return places(self._padded != self._ignored)

    @cached_property
    def labels(self) -> Tensor:
        """The token ids of the targets."""
        return self._padded.flatten().index_select(0, self._places)

    @cached_property
    def cross_entropy(self) -> Tensor:
        """The loss without additions."""
        return F.cross_entropy(
            self._all.flatten(0, 1).float(),
            self._padded.flatten(),
            ignore_index=self._ignored,
            reduction="sum",
            label_smoothing=self._label_smoothing,
        )

    def logits(self, rows: slice) -> Tensor:
        """Select the logits of some tokens."""
        return self._all.flatten(0, 1).index_select(0, self._places[rows]).float()

    @property
    def rows(self) -> int:
        """Number of tokens whose logits are copied at a time."""
        return chunk_rows(len(self.labels), self._all.shape[-1])


def places(mask: Tensor) -> Tensor:
    """Return the indices of the true positions of a mask, in its flattened form."""
    return mask.flatten().nonzero()[:, 0]


@contextmanager
def layer_outputs(
    model: PreTrainedModel, backbone: Backbone, wanted: bool
) -> Iterator[dict[Stack, list[Tensor]]]:
    """Collect the output of each layer of both stacks in the context, if it is wanted."""
    collected: dict[Stack, list[Tensor]] = {stack: [] for stack in STACKS}
    with ExitStack() as hooks:
        for stack in STACKS if wanted else ():
            for layer in backbone.layers(model, stack):
                hook = layer.register_forward_hook(partial(_collect, collected[stack]))
                hooks.callback(hook.remove)
        yield collected


def _collect(outputs: list[Tensor], layer: nn.Module, inputs: Any, output: Any) -> None:
    outputs.append(output if isinstance(output, Tensor) else output[0])
