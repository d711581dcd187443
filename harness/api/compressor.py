"""The interface of a compressor: one change that makes fine-tuning cheaper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from harness.api.cost import Cost
from harness.api.options import NO_OPTIONS, Options
from harness.api.teacher import Teacher
from harness.api.training_events import TrainingEvents

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness.api.backbone import Backbone
    from harness.api.context import Context
    from harness.api.outputs import Need, Outputs
    from harness.api.parameter_group import ParameterGroup
    from harness.training.engines.padded import Batch


class Stage(IntEnum):
    """Stage of a compressor. Compressors of a recipe are applied in this order.

    Structure changes the modules (pruning), precision changes the storage of weights, adapter
    changes the trained parameters, objective changes the loss (distillation).
    """

    STRUCTURE = 1
    PRECISION = 2
    ADAPTER = 3
    OBJECTIVE = 4


OptionsT = TypeVar("OptionsT", bound=Options)


class Compressor(TrainingEvents, ABC, Generic[OptionsT]):
    """One change that makes fine-tuning cheaper.

    What it may do during training is in ``TrainingEvents``. A subclass names its stage, and the
    model of its options if it has any. Its module imports torch only inside its methods, so that
    listing compressors stays fast.

    Attributes:
        name: the registered name.
        options: the validated options.
        stage: stage in which it is applied.
        Options: the pydantic model of its options.
        conflicts: compressors that cannot be in the same recipe: names, or a stage; "*" means all.
        needs: what it asks for: "data" for calibration examples, "hidden_states" and "teacher" for
            its loss. Nothing else is given.
        teacher: the teacher, if it needs one; its weights are part of the run's identity.
        encoder_storage: precision in which the encoder's outputs for all training examples are
            stored in ``$HARNESS_CACHE``, before training. The steps then read them and compute no
            encoder. A recipe that trains anything in the encoder is refused. None stores nothing.
        graph_safe: whether a training step may be recorded as a CUDA graph with it: it adds only
            operations on the device, the same in every step, without Python code that must rerun.
        packs: whether sequences may be packed; false if it adds positions to each sequence.
        shares_beams: whether beams may share a cache; false if it writes to the decoder's cache.
        learning_rate: documented peak learning rate, unless ``train.adapter_learning_rate`` is set.
            "full" is that of full fine-tuning; None is ``train.default_adapter_learning_rate``.
    """

    stage: ClassVar[Stage]
    Options: type[OptionsT] = NO_OPTIONS
    conflicts: ClassVar[frozenset[str | Stage]] = frozenset()
    needs: ClassVar[frozenset[Need]] = frozenset()
    teacher: Teacher = Teacher()
    encoder_storage: Literal["float16", "float32"] | None = None
    graph_safe: ClassVar[bool] = False
    packs: ClassVar[bool] = True
    shares_beams: ClassVar[bool] = True
    learning_rate: float | Literal["full"] | None = None

    def __init__(self, name: str, options: OptionsT) -> None:
        self.name = name
        self.options = options

    @abstractmethod
    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Change the model, in place or not, and return it.

        The method must work on real weights and on the meta device, because the same code counts
        parameters without weights and trains with weights. It sets ``requires_grad`` to select
        the trained parameters. Random numbers come from ``context.generator`` or from torch's
        global generator, which the run seeds.

        It may be called several times, on skeletons and on weights. Keep nothing of a model in
        ``self``.

        Args:
            model: the backbone's model, as compressors of earlier stages left it.
            backbone: finds the model's layers and modules by role.
            context: the device, the precision, and data and weights on demand.
        """

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Merge the added modules into the backbone's own modules, for the merge check.

        The default returns the model, for compressors that add nothing.

        Raises:
            HarnessError: it cannot be merged; the run then has no merge check.
        """
        return model

    def peft_config(self, model: PreTrainedModel) -> PeftConfig | None:
        """Return the configuration of its adapter for PEFT; None if it has no such adapter.

        The default finds an adapter that PEFT injected under the compressor's name.
        """
        config: PeftConfig | None = (getattr(model, "peft_config", None) or {}).get(self.name)
        return config

    def cost(self, model: PreTrainedModel, source_tokens: int, target_tokens: int) -> Cost:
        """Return what the compressor adds to a training step beside the model.

        The model's parameters and products, and a teacher, are counted already. Default: nothing.

        Args:
            model: the composed model or skeleton.
            source_tokens: length of an example's source.
            target_tokens: length of an example's target.
        """
        return Cost()

    def loss(self, model: PreTrainedModel, batch: Batch, outputs: Outputs) -> Tensor | None:
        """Return an addition to the loss of a micro-batch, or None.

        The addition is a sum over the target tokens of the micro-batch, as the cross-entropy is.
        The sum of a whole optimizer step is divided by the step's target tokens. Multiply a term
        that is not a sum over tokens by ``batch.target_tokens``.

        Args:
            model: the model in training, after its forward pass.
            batch: the micro-batch; its tensors depend on whether sequences are packed.
            outputs: logits in chunks, and what the compressor needs.
        """
        return None

    def parameter_groups(self, model: PreTrainedModel) -> Sequence[ParameterGroup]:
        """Return trained parameters with a learning rate or a weight decay of their own.

        The default names none: all trained parameters have the run's settings.
        """
        return ()
