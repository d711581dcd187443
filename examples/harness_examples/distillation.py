"""Word-level distillation (Hinton et al. 2015, Kim and Rush 2016): imitate the original model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness import Backbone, Batch, Compressor, Context, Options, Outputs, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class DistillationOptions(Options):
    """Options of ``distillation``."""

    weight: float = Field(0.5, gt=0)
    """Weight of the distance to the original model, which is added to the loss."""
    temperature: float = Field(2.0, gt=0)
    """Temperature of both distributions."""


class Distillation(Compressor[DistillationOptions]):
    """Adds the divergence from the original model's predictions of each token."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = DistillationOptions
    needs = frozenset({"teacher"})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Leave the model as it is: only the loss changes."""
        return model

    def loss(self, model: PreTrainedModel, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the weighted divergence, summed over the target tokens."""
        return self.options.weight * outputs.sum_over_logits(self.divergence, outputs.teacher)

    def divergence(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence of some tokens; the square keeps the size of the gradient."""
        from torch.nn import functional

        temperature = self.options.temperature
        own = functional.log_softmax(logits / temperature, -1)
        target = functional.log_softmax(teacher / temperature, -1)
        return temperature**2 * functional.kl_div(own, target, reduction="sum", log_target=True)
