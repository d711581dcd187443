"""Partial fine-tuning: some of the backbone's own weights are trained, the rest is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from compressors.adapter import Adapter, others
from compressors.lprun import is_layer_list, read_layers
from compressors.targets import norms_of
from harness import STACKS, HarnessError, Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class FreezeOptions(Options):
    """Options of ``freeze``."""

    top: int = Field(2, ge=1)
    """Number of layers of each stack to train, those nearest to the output."""
    layers: str | None = None
    """Layers of each stack to train, as in 1-3.5.7, in place of the top ones."""
    encoder_top: int | None = Field(None, ge=0)
    """Number of the encoder's layers to train, if it differs; 0 freezes the whole encoder."""

    @field_validator("layers")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is None or is_layer_list(text):
            return text
        raise ValueError("write layers to train such as 1-3.5.7")


class Freeze(Adapter):
    """Trains some layers as they are, and freezes embeddings and all other layers."""

    Options = FreezeOptions
    graph_safe: ClassVar[bool] = True
    conflicts: ClassVar[frozenset[str]] = others("freeze")

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Choose what is trained; no module changes."""
        model.requires_grad_(False)
        for stack in STACKS:
            layers = backbone.layers(model, stack)
            own = self.options.encoder_top if stack == "encoder" else None
            option, top = ("top", self.options.top) if own is None else ("encoder_top", own)
            listed = self.options.layers if own is None else None
            if listed is None and top > len(layers):
                raise HarnessError(
                    f"freeze: the {stack} has {len(layers)} layers, and {option}={top} is more.",
                    f"Give a number up to {len(layers)}: freeze:{option}=N",
                )
            numbers = (
                read_layers(listed, len(layers), self.name)
                if listed
                else range(len(layers) - top + 1, len(layers) + 1)
            )
            for number in numbers:
                layers[number - 1].requires_grad_(True)
        return model


class BitFitOptions(Options):
    """Options of ``bitfit``."""

    norms: bool = True
    """Also train the scales of the norms; T5 has no biases, so that it needs them."""


class BitFit(Adapter):
    """Trains the biases, and by default the norms, and freezes the rest."""

    Options = BitFitOptions
    graph_safe: ClassVar[bool] = True
    conflicts: ClassVar[frozenset[str]] = others("bitfit")

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Choose what is trained; no module changes."""
        norms = norms_of(model) if self.options.norms else {}
        for name, parameter in model.named_parameters():
            module, _, kind = name.rpartition(".")
            parameter.requires_grad_(kind == "bias" or module in norms)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise HarnessError(
                f"bitfit: {backbone.name} has no biases to train.",
                "Train its norms as well: bitfit:norms=true",
            )
        return model
