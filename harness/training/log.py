"""What is written down of the steps taken, without holding up the next one."""

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
    """Adds each step to the history and tells an observer, in order.

    Args:
        file: one JSON object a line.
        observer: is told of each step.
        behind: so many steps are not looked at yet, so that a GPU has its next step before the
            loss of the last one is waited for. Catch up before anything is saved or scored.
    """

    def __init__(self, file: Path, observer: Callable[[StepDone], None], behind: int) -> None:
        self._file = file
        self._observer = observer
        self._behind = behind
        self._waiting: deque[tuple[int, AsyncScalar, float]] = deque()

    def step_taken(self, number: int, loss: Tensor, rate: float) -> None:
        """Note a step.

        Args:
            number: from 1.
            loss: a scalar, on the device.
            rate: the learning rate that it was taken with.

        Raises:
            NonFiniteLossError: this loss, or that of a step noted earlier, is not finite.
        """
        self._waiting.append((number, AsyncScalar(loss), rate))
        self._write(but=self._behind)

    def catch_up(self) -> None:
        """Write down what waits.

        Raises:
            NonFiniteLossError: as above.
        """
        self._write(but=0)

    def _write(self, but: int) -> None:
        while len(self._waiting) > but:
            number, reading, rate = self._waiting.popleft()
            loss = float(reading)
            if not math.isfinite(loss):
                raise NonFiniteLossError(f"The loss of step {number} is {loss}.")
            values = {"loss": loss, "learning_rate": rate}
            append_line(self._file, {"step": number, **values})
            self._observer(StepDone(number, values))
