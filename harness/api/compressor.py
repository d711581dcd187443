"""The interface of a compressor: one change that makes fine-tuning cheaper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from harness.api.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.backbone import Backbone
    from harness.api.context import Context


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


class Compressor(ABC, Generic[OptionsT]):
    """One change that makes fine-tuning cheaper.

    A subclass names its stage and the model of its options. Its module imports torch only inside
    its methods, so that listing compressors stays fast.

    Attributes:
        name: the registered name.
        options: the validated options.
        stage: stage in which it is applied.
        Options: the pydantic model of its options.
        conflicts: names of compressors that cannot be in the same recipe.
    """

    stage: ClassVar[Stage]
    Options: type[OptionsT]
    conflicts: ClassVar[frozenset[str]] = frozenset()

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
        """
        return model
