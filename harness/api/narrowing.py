"""The part of a backbone that makes its layers narrower, for pruning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.backbone import Role, Stack


class Narrowing:
    """Methods of a backbone that drop neurons and heads; the defaults refuse."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for messages."""

    def keep_neurons(
        self, model: PreTrainedModel, stack: Stack, kept: Sequence[Sequence[int]]
    ) -> None:
        """Drop hidden neurons of the feed-forward layers of a stack, in place.

        Afterwards the model is the same as one built with that width: the configuration has it, so
        it saves and loads. The default refuses. ``kept`` has, for each layer, the neurons to keep,
        counted from 0 and increasing; as many in each layer.
        """
        raise HarnessError(
            f"The backbone {self.name} cannot have narrower feed-forward layers.",
            "Its author implements Backbone.keep_neurons, or declares width_fields.",
        )

    def keep_heads(
        self, model: PreTrainedModel, stack: Stack, role: Role, kept: Sequence[Sequence[int]]
    ) -> None:
        """Drop heads of an attention in each layer of a stack, in place.

        After all attentions the model is the same as one built with that number of heads, each as
        wide as before. The default refuses: BART, for example, takes a head's width as the model's
        width divided by the heads. ``role`` is ``self_attn.out`` or ``cross_attn.out``; ``kept`` is
        as in ``keep_neurons``, and the same in all layers for a self-attention.
        """
        raise HarnessError(
            f"The configuration of {self.name} cannot describe fewer attention heads of the same "
            "width, so that no other program could load the model.",
            "Prune layers or neurons instead: lprun, prune_ffn",
        )
