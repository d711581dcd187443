"""Block influence (Men et al. 2024): drop the layers that change their input least."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness import STACKS, Backbone, Compressor, Context, HarnessError, Options, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class InfluenceOptions(Options):
    """Options of ``influence``."""

    drop: int = Field(1, ge=1)
    """Number of layers to drop in each stack; the first layer always stays."""
    examples: int = Field(64, ge=1, le=512)
    """Number of training examples to look at."""


class Influence(Compressor[InfluenceOptions]):
    """Measures on training examples how much each layer changes its input, and drops some."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = InfluenceOptions
    needs = frozenset({"data"})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Drop layers in place."""
        depths = {stack: len(backbone.layers(model, stack)) for stack in STACKS}
        if self.options.drop >= min(depths.values()):
            raise HarnessError(
                f"influence: cannot drop {self.options.drop} of {min(depths.values())} layers.",
                f"Give a number from 1 to {min(depths.values()) - 1}: influence:drop=N",
            )
        changes = {stack: [0.0] * depth for stack, depth in depths.items()}
        if not context.skeleton:  # A skeleton has no values. Its layers are all of one size.
            self.measure(model, backbone, context, changes)
        for stack, change in changes.items():
            order = sorted(range(1, len(change)), key=change.__getitem__)
            dropped = order[: self.options.drop]
            kept = [i + 1 for i in range(len(change)) if i not in dropped]
            backbone.keep_layers(model, stack, kept)
        return model

    def measure(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        context: Context,
        changes: dict[Any, list[float]],
    ) -> None:
        """Add up, for each layer, 1 minus the cosine between its input and its output."""
        import torch

        def add(
            stack: Any, number: int, layer: Any, inputs: tuple[Tensor, ...], output: Any
        ) -> None:
            states = output if torch.is_tensor(output) else output[0]
            change = 1 - torch.cosine_similarity(inputs[0], states, dim=-1)
            changes[stack][number] += float(change[real[stack]].sum())

        with ExitStack() as hooks, torch.no_grad():
            for stack in STACKS:
                for number, layer in enumerate(backbone.layers(model, stack)):
                    hook = layer.register_forward_hook(partial(add, stack, number))
                    hooks.callback(hook.remove)
            training = model.training
            model.eval()
            for batch in context.calibration(self.options.examples):
                # Positions that are not padding.
                real = {
                    "encoder": batch["attention_mask"].bool(),
                    "decoder": batch["labels"] != -100,
                }
                model(**batch)
            model.train(training)
