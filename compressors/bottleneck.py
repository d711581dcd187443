"""Bottleneck adapters: small networks after sub-layers (Houlsby et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressors.adapter import Adapter, others
from compressors.targets import modules_of
from harness import HarnessError, Options, Role

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class BottleneckOptions(Options):
    """Options of ``houlsby`` and ``pfeiffer``."""

    size: int = Field(64, ge=1)
    """Width of the bottleneck."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the adapter's input."""


class Bottleneck(Adapter):
    """Freezes the model and adds a two-layer network, with a skip, to outputs of sub-layers."""

    Options = BottleneckOptions
    graph_safe: ClassVar[bool] = True
    roles: ClassVar[tuple[Role, ...]]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Wrap the last linear layer of each sub-layer in place."""
        import torch

        from compressors.bottleneck_layer import BottleneckLayer

        targets = modules_of(model, backbone, self.roles, self.name)
        model.requires_grad_(False)
        for path, layer in targets.items():
            with torch.device("meta" if context.skeleton else "cpu"):
                wrapped = BottleneckLayer(layer, self.options.size, self.options.dropout)
            _replace(model, path, wrapped.to(next(layer.parameters()).device))
        return model

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Raise an error: a network that is not linear is no weight of the backbone."""
        raise HarnessError(
            f"{self.name}: bottleneck adapters are not linear, so that no weight of the backbone "
            "can stand for them.",
            "The trained weights are in the run's folder: weights.safetensors",
        )


class Houlsby(Bottleneck):
    """Adapters after every attention and every feed-forward layer."""

    roles = ("self_attn.out", "cross_attn.out", "ffn.out")
    conflicts: ClassVar[frozenset[str]] = others("houlsby")


class Pfeiffer(Bottleneck):
    """Adapters after every feed-forward layer."""

    roles = ("ffn.out",)
    conflicts: ClassVar[frozenset[str]] = others("pfeiffer")


def _replace(model: PreTrainedModel, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
