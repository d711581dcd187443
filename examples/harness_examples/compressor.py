"""BitFit (Ben Zaken et al. 2022): train the biases, freeze the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from harness import Backbone, Compressor, Context, HarnessError, Options, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BitFitOptions(Options):
    """Options of ``biases``."""

    norms: bool = True
    """Also train the scales of the norms; T5 has no biases, so it needs them."""


class BitFit(Compressor[BitFitOptions]):
    """Trains biases, and by default norms."""

    stage: ClassVar[Stage] = Stage.ADAPTER
    graph_safe: ClassVar[bool] = True
    Options = BitFitOptions
    # Another adapter would freeze the biases again.
    conflicts: ClassVar[frozenset[str | Stage]] = frozenset({Stage.ADAPTER})

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Choose what is trained; no module changes."""
        for name, parameter in model.named_parameters():
            module, _, kind = name.rpartition(".")
            norm = "norm" in module.rpartition(".")[2]
            parameter.requires_grad_(kind == "bias" or (norm and self.options.norms))
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise HarnessError(
                f"biases: {backbone.name} has no biases to train.",
                "Train its norms as well: biases:norms=true",
            )
        return model
