"""The interface of a compressor: one change that makes fine-tuning cheaper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from harness.api.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.backbone import Backbone


class Stage(IntEnum):
    """When a compressor acts. Compressors of a recipe are applied in this order.

    Structure changes the modules that there are (pruning), precision how weights are stored,
    adapter what is trained, objective what is optimised (distillation).
    """

    STRUCTURE = 1
    PRECISION = 2
    ADAPTER = 3
    OBJECTIVE = 4


OptionsT = TypeVar("OptionsT", bound=Options)


class Compressor(ABC, Generic[OptionsT]):
    """One change that makes fine-tuning cheaper.

    A subclass names its stage and its options model; its module imports torch only inside its
    methods, so that listing compressors stays fast.

    Attributes:
        name: the registered name.
        options: the validated options.
        stage: when it acts.
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
    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Change the model, in place or not, and return it.

        Works on real weights and on the meta device alike: the same code counts parameters
        without weights and trains with them. Sets ``requires_grad`` to say what is trained.
        Random numbers come from torch's global generator, which the run seeds.
        """

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold what was added back into the backbone's own modules, for hand-over.

        The default suits compressors that add nothing.
        """
        return model
