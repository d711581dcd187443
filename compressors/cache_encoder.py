"""A frozen encoder reads every source once, before training; the steps read what it computed.

Features of frozen layers were cached so for BERT by Liu et al. 2021 (AutoFreeze).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness import Compressor, Options, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class EncoderCacheOptions(Options):
    """Options of ``cache_encoder``."""

    dtype: Literal["float16", "float32"] = "float16"
    """Precision in which the encoder's outputs are stored in $HARNESS_CACHE."""


class EncoderCache(Compressor[EncoderCacheOptions]):
    """Stores the outputs of an encoder in which nothing is trained, and computes them once.

    The encoder then has no dropout, and costs nothing in a step. Whatever trains in it is refused.
    """

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    graph_safe: ClassVar[bool] = True
    Options = EncoderCacheOptions

    def __init__(self, name: str, options: EncoderCacheOptions) -> None:
        super().__init__(name, options)
        self.encoder_storage = options.dtype

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Leave the model as it is: only the steps change."""
        return model
