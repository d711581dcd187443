"""Full fine-tuning: the baseline that every recipe is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from harness import Compressor, Options, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class FullOptions(Options):
    """Options of ``full``."""

    paper_compat: bool = False
    """Reduce T5's embedding to the tokenizer's 32,100 entries, as the paper counts it."""


class Full(Compressor[FullOptions]):
    """Trains every weight of the backbone."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    graph_safe: ClassVar[bool] = True
    Options = FullOptions
    conflicts: ClassVar[frozenset[str]] = frozenset({"*"})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Return the model unchanged, or with the paper's vocabulary if that is requested."""
        if self.options.paper_compat:
            backbone.resize_to_tokenizer(model)
        return model
