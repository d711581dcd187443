"""Scalars that are copied from the device without synchronizing."""

import pytest
import torch

from harness.training.async_scalar import AsyncScalar


def test_it_is_the_number() -> None:
    assert float(AsyncScalar(torch.tensor(1.5))) == 1.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_it_does_not_wait_for_what_was_queued_later() -> None:
    x = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()
    reading = AsyncScalar(x[0, 0])
    later = torch.cuda.Event()
    for _ in range(50):
        x @ x
    later.record()
    assert float(reading) == float(reading)
    assert not later.query()
    assert float(reading) == float(x[0, 0])
