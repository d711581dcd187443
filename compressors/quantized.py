"""Frozen weights in 8 or 4 bits under LoRA (QLoRA, Dettmers et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, get_args

from compressors.methods import METHODS
from harness import Compressor, HarnessError, Options, ParameterGroup, Role, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressors.quantized_linear import QuantizedLinear
    from harness import Backbone, Context

_OVER = frozenset({"lora", "lora_ff", "lora_qv"})
"""Methods that only add to the output of a layer, whatever its weight is stored in."""


class QuantizedOptions(Options):
    """Options of ``int8`` and ``nf4``."""


class Quantized(Compressor[QuantizedOptions]):
    """Stores the linear layers of all Transformer layers in few bits and freezes the model.

    Layers that transformers keeps in float32 stay as they are: T5's last projection of a
    feed-forward overflows in low precision.
    """

    stage: ClassVar[Stage] = Stage.PRECISION
    Options = QuantizedOptions
    conflicts: ClassVar[frozenset[str]] = frozenset(METHODS) - _OVER | {"int8", "nf4"}

    def __init__(self, name: str, options: QuantizedOptions) -> None:
        super().__init__(name, options)
        self.conflicts = type(self).conflicts - {name}  # type: ignore[misc]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Replace linear layers in place."""
        from torch import nn

        kept = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
        model.requires_grad_(False)
        for role in get_args(Role):
            for name, module in backbone.modules(model, role).items():
                if type(module) is nn.Linear and name.rpartition(".")[2] not in kept:
                    _replace(model, name, self.layer()(module))
        return model

    def layer(self) -> type[QuantizedLinear]:
        """Return the class of the layers."""
        from compressors.quantized_linear import Int8Linear, Nf4Linear

        return Int8Linear if self.name == "int8" else Nf4Linear

    def parameter_groups(self, model: PreTrainedModel) -> list[ParameterGroup]:
        """Return no groups, after a check that something can be trained.

        Raises:
            HarnessError: no adapter trains anything.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise HarnessError(
                f"{self.name}: weights in few bits are frozen, so that nothing would be trained.",
                f"Add a method that trains beside them: lora_ff+{self.name}",
            )
        return []

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Restore plain layers with the values that the codes stand for."""
        from compressors.quantized_linear import QuantizedLinear

        for name, module in list(model.named_modules()):
            if isinstance(module, QuantizedLinear):
                _replace(model, name, module.plain())
        return model


def _replace(model: PreTrainedModel, name: str, module: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
