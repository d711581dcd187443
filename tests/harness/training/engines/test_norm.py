"""The patched norm against transformers' own."""

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from harness.training.engines.norm import patch_t5_norms, rms_norm


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, w: rms_norm(a, w, 1e-6, torch.float64), (x, weight))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_result_and_gradients_are_the_modules(scale: float) -> None:
    torch.manual_seed(0)
    norm = T5LayerNorm(64)
    torch.nn.init.normal_(norm.weight)
    x = (scale * torch.randn(3, 7, 64)).requires_grad_()
    upstream = torch.randn(3, 7, 64)
    results = []
    for lean in (False, True):
        norm.zero_grad()
        x.grad = None
        if lean:
            with patch_t5_norms(norm):
                result = norm(x)
                result.backward(upstream)
        else:
            result = norm(x)
            result.backward(upstream)
        results.append((result.detach(), x.grad, norm.weight.grad))
    for value, reference in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(
            value, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max())
        )


def test_it_keeps_its_input_and_one_number_a_row() -> None:
    norm = T5LayerNorm(64)
    x = torch.randn(10, 64, requires_grad=True)
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), patch_t5_norms(norm):
        norm(x)
    assert sorted(saved.values()) == [10, 64, 640]


def test_the_result_has_the_precision_of_the_products() -> None:
    norm = T5LayerNorm(8)
    x = torch.randn(2, 8)
    with patch_t5_norms(norm):
        assert norm(x).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert norm(x).dtype == torch.bfloat16
    assert "forward" not in vars(norm)


def test_the_norm_of_accelerators_is_the_same() -> None:
    """``torch.nn.functional.rms_norm`` there is one kernel; what it computes shows here too."""
    torch.manual_seed(0)
    x = torch.randn(3, 7, 64, requires_grad=True)
    weight = torch.randn(64, requires_grad=True)
    upstream = torch.randn(3, 7, 64)
    results = [
        (norm, *torch.autograd.grad(norm, (x, weight), upstream))
        for norm in (
            rms_norm(x, weight, 1e-6, torch.float32),
            torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6),
        )
    ]
    for value, reference in zip(*results, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)
