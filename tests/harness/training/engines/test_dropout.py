"""Dropout with packed masks: the dropped share, the scale, and one mask for both passes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from harness.training.engines.dropout import Mask, PackedMaskDropout, drop_on_device, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(dtype: torch.dtype, p: float) -> None:
    torch.manual_seed(0)
    count = 400_000
    result = dropout(torch.ones(count, dtype=dtype), p)
    kept = result != 0
    # Four standard errors of a share.
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=4 * (p * (1 - p) / count) ** 0.5)
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    torch.testing.assert_close(result[kept], scale.expand(int(kept.sum())), rtol=1e-4, atol=0)


def test_neighbours_are_independent() -> None:
    """Four elements share a 64-bit number, eight a byte: no pattern may follow from that."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(1 << 20), 0.3) != 0).float() - 0.7
    for distance in (1, 2, 3, 4, 8):
        product = float((kept[:-distance] * kept[distance:]).mean())
        assert abs(product) < 4 * 0.21 / 1024, distance
    for place in range(4):
        assert abs(float(kept[place::4].mean())) < 4 * 0.21**0.5 / 512, place


def test_the_mask_of_an_accelerator_keeps_the_same_share_and_scale() -> None:
    torch.manual_seed(0)
    count = 100_000
    ones = torch.ones(100, count // 100)
    result, mask = drop_on_device(ones, 0.3)
    share = float((result != 0).float().mean())
    assert share == pytest.approx(0.7, abs=4 * (0.21 / count) ** 0.5)
    torch.testing.assert_close(result[result != 0].unique(), torch.tensor([1 / 0.7]))
    assert torch.equal(mask.apply(ones), result)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_backward_uses_the_mask_of_forward(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    result = dropout(x, 0.4)
    weights = torch.randn(shape)
    (result * weights).sum().backward()
    factor = result.detach() / x.detach()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weights * factor)


def test_tensors_that_are_not_contiguous() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8).T.requires_grad_()
    result = dropout(x, 0.5)
    result.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, result)


@settings(deadline=None)
@given(st.integers(1, 100), st.floats(0, 0.999))
def test_any_size_and_rate(count: int, p: float) -> None:
    mask = Mask.draw(torch.empty(count), p)
    result = mask.apply(torch.ones(count))
    assert mask.bits.numel() == -(-count // 8)
    assert set(result.tolist()) <= {0.0, torch.tensor(mask.scale).item()}
    assert mask.scale == pytest.approx(1 / (1 - p), rel=0.02)


def test_one_seed_gives_one_mask() -> None:
    torch.manual_seed(3)
    first = dropout(torch.ones(100))
    torch.manual_seed(3)
    assert torch.equal(dropout(torch.ones(100)), first)
    assert not torch.equal(dropout(torch.ones(100)), first)


def test_off_is_identity() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x


def test_the_mode_replaces_function_and_module() -> None:
    x = torch.ones(1000)
    module = nn.Dropout(0.1)
    torch.manual_seed(0)
    expected = dropout(x, 0.1)
    for call in (lambda: F.dropout(x, 0.1), lambda: F.dropout(x, p=0.1), lambda: module(x)):
        torch.manual_seed(0)
        with PackedMaskDropout():
            assert torch.equal(call(), expected)
        torch.manual_seed(0)
        assert not torch.equal(call(), expected)
    with PackedMaskDropout():
        assert module.eval()(x) is x
        assert not F.dropout(x, 1.0).any()
