"""A scalar that is read from the GPU without synchronizing the stream."""

from __future__ import annotations

import torch
from torch import Tensor


class AsyncScalar:
    """A scalar that is being copied to the CPU; ``float(value)`` waits for the copy.

    ``float(tensor)`` on CUDA waits for all work that is queued on the stream, and the device then
    idles while the next step is prepared. Here the copy is queued at once, and ``float`` waits for
    it alone, not for the work that was queued later.

    Args:
        scalar: a tensor of one element; it must not be changed afterwards.
    """

    def __init__(self, scalar: Tensor) -> None:
        self._scalar = scalar
        self._copied: torch.cuda.Event | None = None
        if scalar.device.type == "cuda":
            self._scalar = scalar.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(scalar.device))

    def __float__(self) -> float:
        """Return the value, as soon as the copy has arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._scalar)
