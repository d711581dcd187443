"""A number of the device, read without making the processor wait for all that is queued there."""

from __future__ import annotations

import torch
from torch import Tensor


class AsyncScalar:
    """A scalar on its way to the processor; ``float(reading)`` waits until it is there.

    ``float(tensor)`` on CUDA waits for everything that was queued until then, and the device idles
    while the next step is prepared. Here the copy takes its turn in the queue, and what was queued
    after it is not waited for.

    Args:
        scalar: not to be changed afterwards.
    """

    def __init__(self, scalar: Tensor) -> None:
        self._scalar = scalar
        self._copied: torch.cuda.Event | None = None
        if scalar.device.type == "cuda":
            self._scalar = scalar.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(scalar.device))

    def __float__(self) -> float:
        """Return its value."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._scalar)
