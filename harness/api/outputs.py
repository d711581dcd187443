"""The outputs of a forward pass that a compressor's loss is computed from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from torch import Tensor

    from harness.api.backbone import Stack

Need = Literal["data", "hidden_states", "teacher"]
"""Need of a compressor: training examples, the states after each layer, or a teacher."""


class Outputs(ABC):
    """Outputs of a micro-batch, the same whether its sequences are packed or padded.

    Tensors have a row for each token, example after example; there is no padding.

    """

    def __init__(self) -> None:
        self._hidden: dict[Stack, list[Tensor]] | None = None
        self._layers: dict[Stack, list[int]] = {}
        self._teacher: Outputs | None = None
        self._top: tuple[Tensor, Tensor] | None = None

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """The token ids of the targets, shape (target tokens,)."""

    @property
    @abstractmethod
    def cross_entropy(self) -> Tensor:
        """The loss without additions, summed over target tokens, in nats: a scalar."""

    @abstractmethod
    def sum_over_logits(self, function: Callable[..., Tensor], *others: Outputs | Tensor) -> Tensor:
        """Return the sum of a function of the logits, computed for some tokens at a time.

        The backward pass computes the logits of a chunk again. With packed sequences those of all
        tokens are never in memory together.

        Args:
            function: is called with the logits of some target tokens, float32 of shape (tokens,
                vocabulary), and the rows of ``others`` for these tokens; returns a scalar, a sum
                over the tokens.
            others: outputs of another model, whose logits are passed, or tensors with a row for
                each target token, such as ``labels``.
        """

    def hidden_states(self, stack: Stack) -> list[Tensor]:
        """Return the states after each layer of a stack, each of shape (tokens, width).

        Raises:
            HarnessError: the compressor does not need "hidden_states".
        """
        if self._hidden is None:
            raise undeclared("hidden_states")
        return self._hidden[stack]

    def layers(self, stack: Stack) -> list[int]:
        """Return the numbers of the layers of ``hidden_states``, from 1.

        A layer has the number that it has in the backbone, whichever layers were dropped.
        """
        return self._layers[stack]

    @property
    def teacher(self) -> Outputs:
        """The outputs of the teacher for the same tokens, without gradients.

        Raises:
            HarnessError: the compressor does not need a "teacher".
        """
        if self._teacher is None:
            raise undeclared("teacher")
        return self._teacher

    @property
    def teacher_top(self) -> tuple[Tensor, Tensor]:
        """The stored logits of a teacher with ``top``: token ids and logits, most likely first.

        Both have a row of ``top`` columns for each target token. The largest logit of a row is 0.

        Raises:
            HarnessError: the compressor needs no teacher with stored logits.
        """
        if self._top is None:
            raise undeclared("teacher")
        return self._top


def undeclared(need: Need) -> HarnessError:
    """Return the error of a compressor that uses what it does not declare."""
    return HarnessError(
        f"A compressor uses {need!r} without declaring it.",
        f"Its author adds to the class: needs = frozenset({{{need!r}}})",
    )
