"""Distillation: imitate a teacher's distributions (Hinton et al. 2015), states, or predictions.

Targets that the teacher predicts are sequence-level distillation (Kim and Rush 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness import STACKS, Compressor, HarnessError, Options, Stage, Teacher

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness import Backbone, Batch, Context, Outputs, Stack


class DistillOptions(Options):
    """Options of ``distill``."""

    teacher: str = "original"
    """The model to imitate: original (the backbone before any compressor), the folder of a finished
    run of the harness, or the folder or hub id of a model with the same tokenizer."""
    weight: float = Field(0.5, ge=0, le=1)
    """Share of the teacher's distributions in the loss; the cross-entropy to the targets has the
    rest. 0 needs targets=teacher, and then no teacher in the steps."""
    targets: Literal["data", "teacher"] = "data"
    """Targets of the training examples: those of the data, or what the teacher predicts of their
    sources, once, before training, into $HARNESS_CACHE."""
    beams: int = Field(5, ge=1)
    """Number of beams with which the teacher predicts; all else is as for the test split."""
    temperature: float = Field(2.0, gt=0)
    """Temperature of both distributions. The divergence is multiplied by its square, so that the
    weight means the same at every temperature."""
    cache: int | None = Field(None, ge=1)
    """Number of most likely tokens whose logits the teacher computes once, before training, into
    $HARNESS_CACHE. It is then not needed in the steps; less likely tokens count as impossible. By
    default it reads every batch."""
    hidden: float = Field(0.0, ge=0)
    """Weight of the distance between states after the layers that both models have; 0 leaves them
    alone. Both models must be equally wide."""

    @model_validator(mode="after")
    def _states_are_not_stored(self) -> Self:
        if self.cache is not None and self.hidden:
            raise ValueError("hidden needs the teacher in every step, so leave out cache")
        return self

    @model_validator(mode="after")
    def _something_is_taught(self) -> Self:
        if self.weight == 0 and (self.targets == "data" or self.cache or self.hidden):
            raise ValueError(
                "weight=0 learns from the teacher's predictions alone: give targets=teacher, and "
                "leave out cache and hidden"
            )
        return self


class Distill(Compressor[DistillOptions]):
    """Mixes the cross-entropy with the divergence from a teacher's distributions of each token.

    The targets of the cross-entropy are those of the data, or the teacher's own predictions.
    """

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = DistillOptions
    needs = frozenset({"teacher"})

    def __init__(self, name: str, options: DistillOptions) -> None:
        super().__init__(name, options)
        beams = options.beams if options.targets == "teacher" else None
        self.teacher = Teacher(options.teacher, options.cache, beams, logits=options.weight > 0)
        if options.hidden:
            self.needs = frozenset({"teacher", "hidden_states"})  # type: ignore[misc]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Leave the model as it is: only the loss changes."""
        return model

    def loss(self, model: PreTrainedModel, batch: Batch, outputs: Outputs) -> Tensor | None:
        """Return what turns the cross-entropy into the mixture, and the distance of states."""
        chosen = self.options
        if chosen.weight == 0:
            return None
        divergence = (
            outputs.sum_over_logits(self.divergence, outputs.teacher)
            if chosen.cache is None
            else outputs.sum_over_logits(self.top_divergence, *outputs.teacher_top)
        )
        addition = chosen.weight * (divergence - outputs.cross_entropy)
        if chosen.hidden:
            for stack in STACKS:
                distance = self.distance(outputs, stack) * batch.target_tokens
                addition = addition + chosen.hidden * distance
        return addition

    def divergence(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence of the teacher's distribution from the student's, over tokens.

        T5 has logits without a token at the end; those that only one model has are left out.
        """
        from torch.nn import functional as F  # noqa: N812

        temperature = self.options.temperature
        known = min(logits.shape[-1], teacher.shape[-1])
        own = (logits[:, :known] / temperature).log_softmax(-1)
        target = (teacher[:, :known] / temperature).log_softmax(-1)
        return temperature**2 * F.kl_div(own, target, reduction="sum", log_target=True)

    def top_divergence(self, logits: Tensor, ids: Tensor, top: Tensor) -> Tensor:
        """Return the divergence of the teacher's most likely tokens, as if there were no others."""
        temperature = self.options.temperature
        known = ids < logits.shape[-1]
        target = (top / temperature).masked_fill(~known, float("-inf")).log_softmax(-1)
        own = (logits / temperature).log_softmax(-1).gather(1, ids.clamp(max=logits.shape[-1] - 1))
        terms = target.exp() * (target - own)
        return temperature**2 * terms.where(known, terms.new_zeros(())).sum()

    def distance(self, outputs: Outputs, stack: Stack) -> Tensor:
        """Return the squared distance to the teacher's states, relative to their squared length.

        It is the mean over tokens and over the layers of the stack that both models have.

        Raises:
            HarnessError: the models have no layer in common, or are not equally wide.
        """
        taught = outputs.teacher
        pairs = dict(zip(taught.layers(stack), taught.hidden_states(stack), strict=True))
        own = zip(outputs.layers(stack), outputs.hidden_states(stack), strict=True)
        both = [(state, pairs[number]) for number, state in own if number in pairs]
        if not both or both[0][0].shape[-1] != both[0][1].shape[-1]:
            raise HarnessError(
                f"{self.name}: the states of the {stack} cannot be compared with the teacher's: "
                + ("the widths differ." if both else "the models have no layer in common."),
                f"Leave out hidden={self.options.hidden:g}, or choose another teacher.",
            )
        total = both[0][0].new_zeros(()).float()
        for state, target in both:
            difference = (state.float() - target.float()).square().sum(-1)
            total = total + (difference / target.float().square().sum(-1)).mean()
        return total / len(both)
