"""The cost of a compressor that its model does not show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Addition of a compressor to the cost of a training step, beside the model.

    Attributes:
        flops: floating-point operations of the matrix products for one example.
        bytes: bytes in memory during the whole training.
    """

    flops: int = 0
    bytes: int = 0
