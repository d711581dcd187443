"""Prompt and p-tuning: trained vectors in front of the encoder's input."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from compressors.adapter import Adapter, others
from harness import HarnessError, Options

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class PromptOptions(Options):
    """Options of ``prompt``."""

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens in front of each source."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """First vectors: embeddings of words drawn from the vocabulary, or random ones."""


class PtuningOptions(Options):
    """Options of ``ptuning``."""

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens in front of each source."""
    hidden: int = Field(128, ge=1)
    """Width of the network that makes the vectors."""


class VirtualTokens(Adapter):
    """Freezes the model and trains vectors that the encoder reads before each source.

    PEFT wraps the model in another one for this, whose modules have other names. Here hooks of the
    encoder and the decoder do it, so that the model, its search and its checkpointing stay. The
    vectors are computed by PEFT's own modules.
    """

    packs: ClassVar[bool] = False
    graph_safe: ClassVar[bool] = False

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Add a module of the compressor's name, and hooks that insert its output."""
        import torch

        width = model.get_input_embeddings().embedding_dim
        with torch.device("meta" if context.skeleton else "cpu"):
            vectors = self.vectors(width, self._words(model, context))
        model.requires_grad_(False)
        model.add_module(self.name, vectors.to(next(model.parameters()).device))
        insert_tokens(model, vectors, self.options.tokens, backbone.longest_sequence())
        model.peft_config = {self.name: self.config(width)}
        return model

    def vectors(self, width: int, words: Tensor | None) -> nn.Module:
        """Return the module that makes the vectors from their numbers.

        Args:
            width: size of a vector.
            words: embeddings of words, one for each virtual token; None on a skeleton.
        """
        raise NotImplementedError

    def config(self, width: int) -> PeftConfig:
        """Return PEFT's configuration."""
        raise NotImplementedError

    def _words(self, model: PreTrainedModel, context: Context) -> Tensor | None:
        import torch

        if context.skeleton:
            return None
        embedding = model.get_encoder().get_input_embeddings()
        shape = (self.options.tokens,)
        count = int(embedding.num_embeddings)
        ids = torch.randint(count, shape, generator=context.generator)
        with torch.no_grad():
            words: Tensor = embedding(ids.to(embedding.weight.device)).cpu()
        return words

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Raise an error: no weight of the backbone can stand for additional tokens."""
        raise HarnessError(
            f"{self.name}: virtual tokens cannot be merged into the backbone's weights.",
            "The trained weights are in the run's folder: weights.safetensors",
        )


class Prompt(VirtualTokens):
    """Prompt tuning (Lester et al. 2021): the vectors themselves are trained."""

    Options = PromptOptions
    conflicts: ClassVar[frozenset[str]] = others("prompt")

    def vectors(self, width: int, words: Tensor | None) -> nn.Module:
        """Return PEFT's embedding."""
        from peft import PromptEmbedding

        config = self.config(width)
        config.token_dim = width
        embedding: Any = PromptEmbedding(config, None)
        if words is not None and self.options.init == "vocabulary":
            embedding.embedding.weight.data.copy_(words)
        return cast("nn.Module", embedding)

    def config(self, width: int) -> PeftConfig:
        """Return PEFT's configuration."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.options.tokens,
            num_transformer_submodules=1,
        )


class Ptuning(VirtualTokens):
    """P-tuning (Liu et al. 2021): a small network makes the vectors."""

    Options = PtuningOptions
    conflicts: ClassVar[frozenset[str]] = others("ptuning")

    def vectors(self, width: int, words: Tensor | None) -> nn.Module:
        """Return PEFT's network."""
        from peft import PromptEncoder

        config = self.config(width)
        config.token_dim = width
        return cast("nn.Module", PromptEncoder(config))

    def config(self, width: int) -> PeftConfig:
        """Return PEFT's configuration."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.options.tokens,
            num_transformer_submodules=1,
            encoder_hidden_size=self.options.hidden,
        )


def insert_tokens(
    model: PreTrainedModel, vectors: nn.Module, count: int, longest: int | None
) -> None:
    """Let the encoder read vectors before each source, and let the decoder see them.

    Args:
        model: the model.
        vectors: returns the vectors of a row of numbers, shape (1, count, width).
        count: number of vectors.
        longest: largest number of positions; None if there is no limit.
    """
    encoder, decoder = model.get_encoder(), model.get_decoder()
    before = partial(_insert, vectors, count, longest)
    encoder.register_forward_pre_hook(before, with_kwargs=True)
    decoder.register_forward_pre_hook(partial(_show, count), with_kwargs=True)


def _insert(
    vectors: nn.Module,
    count: int,
    longest: int | None,
    encoder: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    given = dict(kwargs)
    ids = args[0] if args else given.pop("input_ids", None)
    states = given.get("inputs_embeds")
    if states is None:
        states = encoder.get_input_embeddings()(ids)
    if longest is not None and states.shape[1] + count > longest:
        raise HarnessError(
            f"{count} virtual tokens and {states.shape[1]} tokens of a source are more than the "
            f"model's {longest} positions.",
            f"Shorten the sources: --set task_options.max_source_length={longest - count}",
        )
    numbers = torch.arange(count, device=states.device)[None]
    tokens = vectors(numbers).to(states.dtype).expand(len(states), -1, -1)
    given["inputs_embeds"] = torch.cat([tokens, states], 1)
    given["attention_mask"] = longer_mask(given.get("attention_mask"), count)
    return args[1:], given


def _show(
    count: int, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = longer_mask(kwargs.get("encoder_attention_mask"), count)
    return args, {**kwargs, "encoder_attention_mask": mask}


def longer_mask(mask: Tensor | None, count: int) -> Tensor | None:
    """Return a mask that also shows tokens in front; a mask of four dimensions is added."""
    import torch

    if mask is None:
        return None
    seen = mask.new_zeros if mask.is_floating_point() and mask.ndim == 4 else mask.new_ones
    return torch.cat([seen(*mask.shape[:-1], count), mask], -1)
