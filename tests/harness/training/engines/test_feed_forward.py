"""T5's feed-forward, which keeps less, against transformers' own."""

import pytest
import torch
from torch import Tensor
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerFF

from harness.training.engines.dropout import PackedMaskDropout
from harness.training.engines.feed_forward import patch_t5_feed_forwards


def outcome(layer: T5LayerFF, x: Tensor) -> list[Tensor]:
    """The result and all gradients."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # Of dropout.
    with torch.autocast("cpu", torch.bfloat16), PackedMaskDropout():
        result = layer(x)
    result.square().sum().backward()
    assert x.grad is not None
    return [result.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_under_autocast_all_bits_are_the_same(kind: str) -> None:
    torch.manual_seed(0)
    layer = T5LayerFF(T5Config(d_model=16, d_ff=24, feed_forward_proj=kind))
    x = torch.randn(2, 5, 16)
    expected = outcome(layer, x)
    with patch_t5_feed_forwards(layer):
        assert "forward" in vars(layer.DenseReluDense)
        actual = outcome(layer, x)
    assert "forward" not in vars(layer.DenseReluDense)
    for value, reference in zip(actual, expected, strict=True):
        assert torch.equal(value, reference)
