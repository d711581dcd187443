"""The layer of a bottleneck adapter."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class BottleneckLayer(nn.Module):
    """A linear layer whose output y becomes ``y + up(gelu(down(y)))``; at first it is y.

    Args:
        layer: the frozen layer.
        size: width of the bottleneck.
        dropout: dropout probability of the input of ``down``.
    """

    def __init__(self, layer: Any, size: int, dropout: float) -> None:
        super().__init__()
        width = layer.out_features
        self.base_layer = layer
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def weight(self) -> Tensor:
        """The frozen layer's weight, whose type T5 reads."""
        weight: Tensor = self.base_layer.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output and the adapter's."""
        y: Tensor = self.base_layer(x)
        # A frozen layer may compute in another type than the adapter.
        inner: Tensor = self.dropout(y.to(self.down.weight.dtype))
        update: Tensor = self.up(F.gelu(self.down(inner)))
        return y + update.to(y.dtype)
