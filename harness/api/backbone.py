"""The interface of a backbone: a pre-trained encoder-decoder with its tokenizer and its roles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

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
"""What a linear module is for, whatever its name. A gated feed-forward has two ``ffn.in``."""


class Backbone(ABC):
    """A pre-trained encoder-decoder model, its tokenizer, and the roles of its modules.

    Attributes:
        reference: what the user called it: a registered name, a hub id or a folder.
        preset: the preset of settings that suits it when the user names none.
        safe_dtypes: the low-precision dtypes in which it trains without overflow.
        shared_beams: whether the beams of an example may share a cache, which makes beam search
            several times faster. It takes a model whose attentions all go through transformers'
            registry of attention implementations and add no mask of their own, so that
            ``harness.evaluation.beam_cache`` can take their place; test its predictions against
            transformers' own. Else transformers' search is used.
    """

    preset: ClassVar[str] = "paper"
    safe_dtypes: ClassVar[frozenset[str]] = frozenset({"float32", "bfloat16"})
    shared_beams: ClassVar[bool] = False

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.notes: list[str] = []
        """What is unusual about its checkpoint, once that was looked at; for the report."""

    @property
    def name(self) -> str:
        """A short name for tables and run ids."""
        return self.reference.rstrip("/").split("/")[-1]

    def version(self) -> str:
        """Return what tells its files from all others: it is part of a run's identity.

        The plugin's own code is that already; a backbone that reads files adds a hash of them, or
        the commit that they are of.
        """
        return self.reference

    @abstractmethod
    def config(self) -> PreTrainedConfig:
        """Return a fresh configuration; for well-known shapes this needs no network."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Raises:
            HarnessError: it is neither in the package, nor on disk, nor to be had from the hub.
        """

    @abstractmethod
    def load(self, weights: Weights) -> PreTrainedModel:
        """Return the model in float32 on the CPU, in training mode.

        ``random`` needs no network; it draws from torch's global generator.

        Raises:
            HarnessError: the weights cannot be had; the hint names each way to supply them.
        """

    def check(self, weights: Weights) -> None:
        """Make sure that ``load`` will succeed, before anything costs time.

        Raises:
            HarnessError: the weights are missing, damaged or incomplete.
        """
        return

    def always_trained(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """Return parameters that every recipe trains, after its compressors are applied.

        They are those for which the checkpoint has nothing, such as embeddings of added tokens.
        """
        return []

    @abstractmethod
    def skeleton(self) -> PreTrainedModel:
        """Return the model on the meta device: shapes without weights, in seconds."""

    @abstractmethod
    def modules(self, model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
        """Return qualified name -> module for all modules of a role, in order of depth."""

    @abstractmethod
    def layers(self, model: PreTrainedModel, stack: Stack) -> nn.ModuleList:
        """Return the Transformer layers of a stack, first to last."""

    @abstractmethod
    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop all layers of a stack but ``kept`` (1-indexed, increasing), in place.

        Afterwards the model is as if built that deep: attention caches are renumbered and the
        depth is in its config, so that it saves, loads and generates like any other.
        """

    @abstractmethod
    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Cut the embedding to the tokenizer's vocabulary (T5 pads its own to 32,128 rows)."""

    def longest_sequence(self) -> int | None:
        """Return how many tokens a sequence can have; None where positions have no end."""
        return None

    def restart_positions(self, model: PreTrainedModel) -> list[RemovableHandle] | None:
        """Make positions restart with each sequence of a packed row, or say that this cannot be.

        A packed row holds the sequences of a batch end to end, without padding. Each stack is then
        called with the keyword ``packed``, a ``harness.training.engines.rows.Packed``; it reaches
        every module that passes its keywords on. Attention stays within each sequence by itself,
        and where it is given a ``position_bias``, reads it for the longest sequence of the row:
        shape (1, heads, longest, longest). Calls without the keyword must work as before.

        Returns:
            Hooks on the model, which are removed after training; None: batches are padded.
        """
        return None
