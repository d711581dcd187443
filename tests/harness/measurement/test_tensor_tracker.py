"""The tensor tracker against known allocations and against the allocator's own events."""

import pytest
import torch
from torch import Tensor, nn

from harness.measurement.memory import peak_of_allocations
from harness.measurement.tensor_tracker import TensorTracker

KIB = 2**10


def kibibytes(count: int) -> Tensor:
    return torch.zeros(count * KIB // 4)


def test_parts_are_taken_at_the_peak_and_add_up_to_it() -> None:
    weights, state = kibibytes(8), kibibytes(16)
    tracker = TensorTracker({"weights": [weights, weights[3:]], "optimizer": [state]}, vocabulary=7)
    with tracker:
        kept = weights + 1
        logits = torch.zeros(KIB, 7)
        tracker.part = "other"
        passing = kept * 2  # 8 KiB, then 8 KiB more: the peak.
        gradient = kept * 3
        del passing, logits
        kept.view(2, -1).mul_(2)  # A view allocates nothing.
        tracker.mark_gradients([gradient])
    assert tracker.peak() == {
        "weights": 8 * KIB,
        "optimizer": 16 * KIB,
        "activations": 8 * KIB,
        "logits": 28 * KIB,
        "gradients": 8 * KIB,
        "other": 8 * KIB,
        "teacher": 0,
    }


def test_what_is_freed_is_not_counted_again() -> None:
    tracker = TensorTracker({}, vocabulary=7)
    with tracker:
        for _ in range(5):
            kibibytes(64)
    assert sum(tracker.peak().values()) == 64 * KIB


def test_it_agrees_with_the_allocator() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    x = torch.randn(512, 64)

    def step() -> None:
        model.zero_grad()
        model(x).square().mean().backward()

    step()
    held = sum(p.nbytes for p in model.parameters()) + x.nbytes
    model.zero_grad()
    tracker = TensorTracker({"weights": model.parameters(), "other": [x]}, vocabulary=7)
    with tracker:
        step()
    model.zero_grad()
    assert sum(tracker.peak().values()) == pytest.approx(held + peak_of_allocations(step), rel=0.01)
