"""Gradual pruning (Zhu and Gupta 2018): ever more of the smallest weights become zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness import Backbone, Compressor, Context, Cost, Options, ParameterGroup, Stage

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class SparsityOptions(Options):
    """Options of ``sparsity``."""

    final: float = Field(0.5, gt=0, lt=1)
    """Share of the weights of each matrix that are zero in the end."""
    every: int = Field(10, ge=1)
    """Steps between two prunings."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of the pruned matrices."""


class Sparsity(Compressor[SparsityOptions]):
    """Prunes all trained matrices during the first two thirds of the training."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = SparsityOptions

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Leave the model as it is: the work is done during training."""
        return model

    def parameter_groups(self, model: PreTrainedModel) -> list[ParameterGroup]:
        """Give the pruned matrices a learning rate of their own, and no decay."""
        matrices = [weight for _, weight in self.matrices(model)]
        return [ParameterGroup("matrices", matrices, self.options.learning_rate, weight_decay=0.0)]

    def on_train_start(self, model: PreTrainedModel, total_steps: int) -> None:
        """Begin with dense matrices."""
        self.last = max(1, total_steps * 2 // 3)
        self.masks: dict[str, Tensor] = {}

    def on_step(self, model: PreTrainedModel, step: int) -> None:
        """Choose the weights to prune from time to time, and keep them at zero after every step."""
        if step <= self.last and (step % self.options.every == 0 or step == self.last):
            sparsity = self.options.final * (1 - (1 - step / self.last) ** 3)
            for name, weight in self.matrices(model):
                smallest = weight.abs().flatten().kthvalue(1 + int(sparsity * (weight.numel() - 1)))
                self.masks[name] = weight.abs() > smallest.values
        for name, weight in self.matrices(model):
            if name in self.masks:
                weight.mul_(self.masks[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the masks: they cannot be seen from the weights alone."""
        return {"masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the masks."""
        self.masks = dict(state.get("masks", {}))

    def cost(self, model: PreTrainedModel, source_tokens: int, target_tokens: int) -> Cost:
        """Return the memory of the masks, a byte for each weight."""
        return Cost(bytes=sum(weight.numel() for _, weight in self.matrices(model)))

    def matrices(self, model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the matrices of linear layers that are trained, except the LM head."""
        from torch import nn

        head = model.get_output_embeddings()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and module is not head:
                weight = module.get_parameter("weight")
                if weight.requires_grad:
                    yield name, weight
