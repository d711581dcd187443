"""The interface of a backbone: a pre-trained encoder-decoder with its tokenizer and its roles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.api.narrowing import Narrowing

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Stack = Literal["encoder", "decoder"]
STACKS: tuple[Stack, ...] = ("encoder", "decoder")

Weights = Literal["pretrained", "random"]

Role = Literal[
    "self_attn.q",
    "self_attn.k",
    "self_attn.v",
    "self_attn.out",
    "cross_attn.q",
    "cross_attn.k",
    "cross_attn.v",
    "cross_attn.out",
    "ffn.in",
    "ffn.out",
]
"""Function of a linear module, independent of its name. A gated feed-forward layer has two
``ffn.in``."""


class Backbone(Narrowing, ABC):
    """A pre-trained encoder-decoder model, its tokenizer, and the roles of its modules.

    Attributes:
        reference: the user's name for it: a registered name, a hub id or a folder.
        preset: preset of settings that is used if the user names none.
        safe_dtypes: dtypes in which it trains without overflow.
        shared_beams: whether the beams of an example may share a cache, which makes beam search
            several times faster. All attentions of the model must go through transformers' registry
            of attention implementations and must not add a mask, so that
            ``harness.evaluation.beam_cache`` can replace them; test its predictions against
            those of transformers. If False, transformers' search is used.
    """

    preset: ClassVar[str] = "paper"
    safe_dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "bfloat16"})
    shared_beams: ClassVar[bool] = False

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.notes: list[str] = []
        """Notes on the checkpoint for the report, filled when it is checked or loaded."""

    @property
    def name(self) -> str:
        """A short name for tables and run ids."""
        return self.reference.rstrip("/").split("/")[-1]

    def version(self) -> str:
        """Return a text that identifies its files; it is part of a run's identity.

        The plugin's code is part of the identity already. A backbone that reads files returns a
        hash of them, or their commit.
        """
        return self.reference

    @abstractmethod
    def config(self) -> PreTrainedConfig:
        """Return a new configuration; for well-known shapes this needs no network."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Raises:
            HarnessError: it is not in the package, not on disk and not available from the hub.
        """

    @abstractmethod
    def load(self, weights: Weights) -> PreTrainedModel:
        """Return the model in float32 on the CPU, in training mode.

        ``random`` needs no network; it draws from torch's global generator.

        Raises:
            HarnessError: the weights are not available; the hint names each way to supply them.
        """

    def check(self, weights: Weights) -> None:
        """Check, before anything costs time, that ``load`` will succeed.

        Raises:
            HarnessError: the weights are missing, damaged or incomplete.
        """
        return

    def published(self) -> str | None:
        """Return the hub id or the folder from which transformers alone loads the same model.

        An exported adapter refers to it instead of a copy. The default, None, makes exports write
        the base.
        """
        return None

    def license(self) -> str | None:
        """Return the license of the weights, as an identifier of the hub.

        None, the default, means that the card of ``published`` states it, if anything does.
        """
        return None

    def always_trained(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """Return parameters that every recipe trains, after its compressors are applied.

        These are parameters that the checkpoint lacks, such as embeddings of added tokens.
        """
        return []

    @abstractmethod
    def skeleton(self) -> PreTrainedModel:
        """Return the model on the meta device, with shapes and without weights, in seconds."""

    @abstractmethod
    def modules(self, model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
        """Return qualified name -> module for all modules of a role, in order of depth."""

    @abstractmethod
    def layers(self, model: PreTrainedModel, stack: Stack) -> nn.ModuleList:
        """Return the Transformer layers of a stack, first to last."""

    @abstractmethod
    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop all layers of a stack except ``kept`` (1-indexed, increasing), in place.

        Afterwards the model is the same as one built with that depth: attention caches are
        renumbered and the configuration has the depth, so it saves, loads and generates.
        """

    @abstractmethod
    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Reduce the embedding to the tokenizer's vocabulary (T5 pads it to 32,128 rows)."""

    def longest_sequence(self) -> int | None:
        """Return the largest number of tokens of a sequence; None if positions have no limit."""
        return None

    def restart_positions(self, model: PreTrainedModel) -> list[RemovableHandle] | None:
        """Make positions restart with each sequence of a packed row; return None if unsupported.

        A packed row is the concatenation of the sequences of a batch, without padding. Each stack
        is then called with the keyword ``packed``, a ``harness.training.engines.rows.Packed``,
        which reaches every module that passes on its keywords. The harness restricts attention to
        each sequence. If attention has a ``position_bias``, it must be the bias of the longest
        sequence of the row, with shape (1, heads, longest, longest). Calls without the keyword
        must work as before.

        Returns:
            Hooks on the model, which are removed after training, or None to pad batches.
        """
        return None
