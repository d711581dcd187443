"""Gradual layer dropping: a layer of each stack goes from time to time, while the model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness import STACKS, Backbone, Compressor, Context, HarnessError, Options, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ThinningOptions(Options):
    """Options of ``thinning``."""

    drop: int = Field(1, ge=1)
    """Number of layers to drop in each stack; the first and the last layer always stay."""
    start: int = Field(10, ge=1)
    """Step after which the first layers are dropped."""
    every: int = Field(10, ge=1)
    """Steps between two droppings."""


class Thinning(Compressor[ThinningOptions]):
    """Drops the inner layers with the smallest weights, one of each stack at a time."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = ThinningOptions
    # They remember layers by their names, which change with the number of layers.
    conflicts: ClassVar[frozenset[str]] = frozenset({"adalora", "sparsity"})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Leave the model as it is, if it has enough layers."""
        most = min(len(backbone.layers(model, stack)) for stack in STACKS) - 2
        if self.options.drop > most:
            raise HarnessError(
                f"thinning: cannot drop {self.options.drop} of {most} inner layers.",
                f"Give a number from 1 to {most}: thinning:drop=N",
            )
        return model

    def change_after(
        self, model: PreTrainedModel, backbone: Backbone, step: int
    ) -> dict[str, Any] | None:
        """Choose the layer of each stack that goes, when it is time."""
        number, rest = divmod(step - self.options.start, self.options.every)
        if rest or not 0 <= number < self.options.drop:
            return None
        chosen: dict[str, Any] = {}
        for stack in STACKS:
            sizes = [
                sum(float(weight.float().square().sum()) for weight in layer.parameters())
                for layer in backbone.layers(model, stack)
            ]
            chosen[stack] = min(range(2, len(sizes)), key=lambda number: sizes[number - 1])
        return chosen

    def make_change(
        self, model: PreTrainedModel, backbone: Backbone, change: Mapping[str, Any]
    ) -> None:
        """Drop the chosen layers."""
        for stack in STACKS:
            depth = len(backbone.layers(model, stack))
            kept = [n for n in range(1, depth + 1) if n != change[stack]]
            backbone.keep_layers(model, stack, kept)
