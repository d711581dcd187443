"""A group of parameters with a learning rate or a weight decay of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters that the optimizer treats differently from the others.

    The schedule of the learning rate, its warm-up included, multiplies the peak of every group.

    Attributes:
        name: short name for the report.
        parameters: trained parameters; none may be in another group.
        learning_rate: peak learning rate of the group; None takes the run's.
        factor: factor of the peak learning rate.
        weight_decay: weight decay of the group; None takes the run's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float | None = None
    factor: float = 1.0
    weight_decay: float | None = None
