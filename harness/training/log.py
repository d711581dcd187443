"""A log of the optimizer steps, written without delaying the next step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from harness.api.events import StepDone
from harness.records.atomic import append_line
from harness.training.async_scalar import AsyncScalar


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number."""


class TrainingLog:
    """Appends each step to the history file and passes it to an observer, in order.

    Args:
        file: the history, JSON lines.
        observer: is called with each step.
        behind: number of latest steps whose loss is not read yet. With 1, a GPU has its next step
            queued before the loss of the last one is waited for. Call ``catch_up`` before
            anything is saved or scored.
    """

    def __init__(self, file: Path, observer: Callable[[StepDone], None], behind: int) -> None:
        self._file = file
        self._observer = observer
        self._behind = behind
        self._waiting: deque[tuple[int, AsyncScalar, float]] = deque()

    def step_taken(self, number: int, loss: Tensor, rate: float) -> None:
        """Add a step.

        Args:
            number: the step's number, from 1.
            loss: its loss, a scalar on the device.
            rate: its learning rate.

        Raises:
            NonFiniteLossError: the loss of this step or of an earlier one is not finite.
        """
        self._waiting.append((number, AsyncScalar(loss), rate))
        self._write(except_last=self._behind)

    def catch_up(self) -> None:
        """Write all steps that were added.

        Raises:
            NonFiniteLossError: the loss of one of them is not finite.
        """
        self._write(except_last=0)

    def _write(self, except_last: int) -> None:
        while len(self._waiting) > except_last:
            number, scalar, rate = self._waiting.popleft()
            loss = float(scalar)
            if not math.isfinite(loss):
                raise NonFiniteLossError(f"The loss of step {number} is {loss}.")
            values = {"loss": loss, "learning_rate": rate}
            append_line(self._file, {"step": number, **values})
            self._observer(StepDone(number, values))
