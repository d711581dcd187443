"""The chunked loss against cross-entropy over whole logits."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from harness.training.engines import loss as module
from harness.training.engines.loss import chunked_cross_entropy, head_in, head_rows


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("fills", [False, True])
def test_loss_and_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, rows: int, with_bias: bool, smoothing: float, fills: bool
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(module, "_pads", lambda weight: fills)
    vocabulary, width, tokens = 19, 6, 7
    monkeypatch.setattr(module, "_CHUNK_BYTES", rows * vocabulary * 4)
    states = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    bias = torch.randn(vocabulary, requires_grad=True) if with_bias else None
    labels = torch.randint(vocabulary, (tokens,))
    leaves = [t for t in (states, weight, bias) if t is not None]
    logits = F.linear(states, weight, bias)
    expected = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    expected_gradients = torch.autograd.grad(0.3 * expected, leaves)
    actual = chunked_cross_entropy(states, weight, bias, labels, smoothing)
    torch.testing.assert_close(actual, expected)
    for gradient, expected_gradient in zip(
        torch.autograd.grad(0.3 * actual, leaves), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient)


def test_a_frozen_head_gets_no_gradient() -> None:
    states = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(5, 3)
    chunked_cross_entropy(states, weight, None, torch.tensor([0, 1, 2, 4])).backward()
    assert states.grad is not None
    assert weight.grad is None


def test_without_gradients_none_is_made() -> None:
    with torch.no_grad():
        value = chunked_cross_entropy(torch.zeros(4, 3), torch.zeros(5, 3), None, torch.arange(4))
    assert float(value) == pytest.approx(4 * torch.log(torch.tensor(5.0)).item())


def test_whole_logits_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that any operation makes is a chunk's."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    vocabulary, tokens, rows = 1000, 64, 4
    monkeypatch.setattr(module, "_CHUNK_BYTES", rows * vocabulary * 4)
    states = torch.randn(tokens, 3, requires_grad=True)
    with Watch():  # type: ignore[no-untyped-call]
        chunked_cross_entropy(
            states, torch.randn(vocabulary, 3), None, torch.arange(tokens)
        ).backward()
    assert largest == rows * vocabulary


@pytest.mark.parametrize(
    ("vocabulary", "rows"), [(50265, 50304), (32128, 32128), (48, 48), (1, 64)]
)
def test_a_head_is_filled_up_where_its_rows_are_not_aligned(vocabulary: int, rows: int) -> None:
    assert head_rows(vocabulary) == rows


def test_a_frozen_head_that_is_filled_up_computes_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(7, 6, requires_grad=True), torch.randn(19, 6)
    bias, labels = torch.randn(19), torch.randint(19, (7,))
    labels[2] = -100
    given = bias, labels, 0.1, True
    expected = chunked_cross_entropy(states, weight, *given)
    (gradient,) = torch.autograd.grad(expected, states)
    assert len(head_in(weight, torch.bfloat16)) == 19  # On a CPU nothing is filled up.
    monkeypatch.setattr(module, "_pads", lambda weight: True)
    filled = head_in(weight, torch.float32)
    assert filled.shape == (64, 6)
    assert not filled[19:].any()
    found = chunked_cross_entropy(states, filled, *given, 19)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, states)[0], gradient)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("trained", [False, True])
def test_on_a_gpu_a_head_whose_rows_are_not_aligned_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    torch.manual_seed(0)
    vocabulary, width, tokens = 801, 64, 50
    drawn = torch.randn(tokens, width), torch.randn(vocabulary, width)
    labels = torch.randint(vocabulary, (tokens,), device="cuda")
    results = []
    for fills in (False, True):
        monkeypatch.setattr(module, "_pads", lambda weight, fills=fills: fills)
        states, weight = (x.to("cuda").requires_grad_() for x in drawn)
        head = weight if trained else head_in(weight.detach(), torch.bfloat16)
        assert len(head) == (832 if fills and not trained else vocabulary)
        low = states.to(torch.bfloat16)
        loss = chunked_cross_entropy(low, head, None, labels, vocabulary=vocabulary)
        leaves = [states, weight] if trained else [states]
        results.append([loss, *torch.autograd.grad(loss, leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)
