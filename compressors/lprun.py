"""Layer pruning: drop Transformer layers before fine-tuning (Zhu et al. 2023, section 3.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from harness import STACKS, Compressor, HarnessError, Options, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context

Strategy = Literal["alternating", "top", "middle", "bottom", "every"]
_STRATEGIES = ("alternating", "top", "middle", "bottom", "every")
_LAYER_LIST = re.compile(r"\d+(-\d+)?(\.\d+(-\d+)?)*")


class LayerPruningOptions(Options):
    """Options of ``lprun``."""

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


class LayerPruning(Compressor[LayerPruningOptions]):
    """Drops layers of the encoder and the decoder, and trains the rest."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = LayerPruningOptions

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Drop layers in place."""
        for stack in STACKS:
            depth = len(backbone.layers(model, stack))
            choice = getattr(self.options, stack) or self.options.strategy
            backbone.keep_layers(model, stack, kept_layers(depth, choice, self.options.drop))
        if self.options.paper_compat:
            backbone.resize_to_tokenizer(model)
        return model


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
                "lprun: the alternating pattern fixes the number of layers to drop, so drop= is "
                "not allowed.",
                "Leave drop out, or choose strategy=every, top, middle or bottom.",
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
            f"Give a number from 1 to {depth - 1}: lprun:strategy={choice},drop=N",
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
