"""Layer pruning: drop Transformer layers before fine-tuning (Zhu et al. 2023, section 3.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness import STACKS, Compressor, HarnessError, Options, Stack, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context

Selection = Literal["alternate", "importance", "angular", "loss", "learned"]
Strategy = Literal["alternating", "top", "middle", "bottom", "every"]
_STRATEGIES = ("alternating", "top", "middle", "bottom", "every")
_LAYER_LIST = re.compile(r"\d+(-\d+)?(\.\d+(-\d+)?)*")


class LayerPruningOptions(Options):
    """Options of ``lprun``."""

    select: Selection = "alternate"
    """Choice of the layers: alternate drops by position, as strategy says. The others look at
    training examples: importance drops the layers that change their input least, angular a run of
    consecutive layers, loss one after the other, always the layer that the loss misses least,
    learned those whose gates close when gates of all layers are trained with a penalty."""
    encoder_keep: int | None = Field(None, ge=1)
    """Number of encoder layers to keep, instead of drop."""
    decoder_keep: int | None = Field(None, ge=1)
    """Number of decoder layers to keep, instead of drop."""
    examples: int = Field(32, ge=1, le=512)
    """Number of training examples to look at."""
    steps: int = Field(60, ge=1)
    """Optimizer steps of the gates of select=learned; a step reads 8 examples."""
    strategy: Strategy = "alternating"
    """Layers to drop: alternating (the paper's pattern), top, middle, bottom, or every (the kept
    layers are evenly spaced)."""
    drop: int | None = None
    """Number of layers to drop in each stack; by default as many as the alternating pattern drops.
    The alternating strategy does not accept it, because its pattern fixes the number."""
    encoder: str | None = None
    """Strategy of the encoder, if it differs; ``all`` keeps every layer, 1-3.5.7 is a list of
    layers to keep."""
    decoder: str | None = None
    """Strategy of the decoder, if it differs; ``all`` keeps every layer, 1-3.5.7 is a list of
    layers to keep."""
    heal: Literal["none", "scale", "linear"] = "none"
    """Fold what dropped layers did on training examples into the layers before them: scale fits one
    number, linear a linear map. The model's structure stays the same."""
    paper_compat: bool = False
    """Reduce T5's embedding to the tokenizer's 32,100 entries, as the paper counts it."""

    @field_validator("encoder", "decoder")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text in (None, "all", *_STRATEGIES) or is_layer_list(str(text)):
            return text
        raise ValueError(
            f"write one of {', '.join(_STRATEGIES)}, all, or layers to keep such as 1-3.5.7"
        )

    @model_validator(mode="after")
    def _consistent(self) -> LayerPruningOptions:
        if self.select != "alternate" and self.strategy != "alternating":
            raise ValueError(
                f"strategy={self.strategy} chooses by position, and select={self.select} by "
                "training examples; leave one out"
            )
        for stack in STACKS:
            keep, choice = getattr(self, f"{stack}_keep"), getattr(self, stack)
            if keep and (choice == "all" or (choice and is_layer_list(choice))):
                raise ValueError(
                    f"{stack}={choice} says which layers are kept; leave {stack}_keep out"
                )
        return self


class LayerPruning(Compressor[LayerPruningOptions]):
    """Drops layers of the encoder and the decoder, and trains the rest."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = LayerPruningOptions

    def __init__(self, name: str, options: LayerPruningOptions) -> None:
        super().__init__(name, options)
        if options.select != "alternate" or options.heal != "none":
            self.needs = frozenset({"data"})  # type: ignore[misc]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Drop layers in place."""
        kept = self.kept_layers(model, backbone, context)
        if self.options.heal != "none" and not context.skeleton:
            from compressors.healing import heal

            batches = context.calibration(self.options.examples)
            heal(self.options.heal, model, backbone, batches, kept)
        for stack in STACKS:
            backbone.keep_layers(model, stack, kept[stack])
        if self.options.paper_compat:
            backbone.resize_to_tokenizer(model)
        return model

    def kept_layers(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> dict[Stack, list[int]]:
        """Return the layers of each stack to keep; of a skeleton as many, but the first ones."""
        kept: dict[Stack, list[int]] = {}
        drops: dict[Stack, int] = {}
        for stack in STACKS:
            depth = len(backbone.layers(model, stack))
            keep: int | None = getattr(self.options, f"{stack}_keep")
            if keep is not None and keep > depth:
                raise HarnessError(
                    f"lprun: cannot keep {keep} of {depth} layers of the {stack}.",
                    f"Give a number from 1 to {depth}: {stack}_keep=N",
                )
            drop = self.options.drop if keep is None else depth - keep
            choice: str | None = getattr(self.options, stack)
            if keep == depth:
                kept[stack] = list(range(1, depth + 1))
            elif self.options.select == "alternate" or choice:
                kept[stack] = kept_layers(depth, choice or self.options.strategy, drop)
            else:
                kept[stack] = kept_layers(depth, "top", drop)
                drops[stack] = depth - len(kept[stack])
        if drops and not context.skeleton and self.options.select != "alternate":
            from compressors.layer_choice import layers_to_drop

            batches = context.calibration(self.options.examples)
            dropped = layers_to_drop(
                self.options.select, model, backbone, batches, drops, self.options.steps
            )
            for stack, numbers in dropped.items():
                depth = len(backbone.layers(model, stack))
                kept[stack] = [i for i in range(1, depth + 1) if i not in numbers]
        return kept


def kept_layers(depth: int, choice: str, drop: int | None = None) -> list[int]:
    """Return the layers of a stack to keep, 1-indexed and increasing.

    Args:
        depth: layers in the stack.
        choice: a strategy, ``all``, or a keep list such as ``1-3.5.7``.
        drop: number of layers to drop, if the strategy does not fix it.

    Raises:
        HarnessError: a keep list or a number that does not fit the stack.
    """
    everything = list(range(1, depth + 1))
    if choice == "all":
        return everything
    if choice not in _STRATEGIES:
        return read_layers(choice, depth, "lprun")
    # The paper's pattern: every second layer, never one of the first three or the last two.
    alternating = [i for i in everything if i % 2 or not 4 <= i <= depth - 2]
    if choice == "alternating":
        if drop is not None:
            raise HarnessError(
                "lprun: the alternating pattern fixes the number of layers to drop, so drop=, "
                "encoder_keep= and decoder_keep= are not allowed.",
                "Leave them out, or choose select=importance, angular, loss or learned, or "
                "strategy=every, top, middle or bottom.",
            )
        if len(alternating) == depth:
            raise HarnessError(
                f"lprun: the alternating pattern drops none of {depth} layers.",
                "Choose another strategy, for example lprun:strategy=top,drop=1",
            )
        return alternating
    count = depth - len(alternating) if drop is None else drop
    if not 0 < count < depth:
        raise HarnessError(
            f"lprun: cannot drop {count} of {depth} layers.",
            f"Give a number from 1 to {depth - 1}: drop=N",
        )
    left = depth - count
    # every: evenly spaced, with the first and the last layer kept.
    step = (depth - 1) / max(left - 1, 1)
    kept = {
        "top": everything[:left],
        "middle": everything[: (left + 1) // 2] + everything[depth - left // 2 :],
        "bottom": everything[count:],
        "every": [1 + round(i * step) for i in range(left)],
    }
    return kept[choice]


def is_layer_list(text: str) -> bool:
    """Return whether a text is a list of layers such as ``1-3.5.7``."""
    return _LAYER_LIST.fullmatch(text) is not None


def read_layers(text: str, depth: int, owner: str) -> list[int]:
    """Return the layers of a list such as ``1-3.5.7``, 1-indexed and increasing.

    Args:
        text: the list.
        depth: layers in the stack.
        owner: name of the compressor, for messages.

    Raises:
        HarnessError: the list does not fit the stack.
    """
    kept: list[int] = []
    for part in text.split("."):
        first, _, last = part.partition("-")
        kept.extend(range(int(first), int(last or first) + 1))
    if kept != sorted(set(kept)) or not kept or kept[0] < 1 or kept[-1] > depth:
        raise HarnessError(
            f"{owner}: the list of layers {text!r} does not fit a stack of {depth} layers.",
            f"List increasing layer numbers from 1 to {depth}, for example 1-3.5.7",
        )
    return kept
