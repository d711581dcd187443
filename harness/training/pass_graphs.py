"""Steps over several micro-batches as CUDA graphs: one of each pass, and one of the update.

The micro-batches of a step have different shapes, so that whole steps hardly repeat. A pass over a
micro-batch does: it is recorded for each shape. Passes add to gradients that stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from harness.model.recorder import Record, Recording
from harness.training.engines.padded import Batch
from harness.training.engines.shapes import BatchShape
from harness.training.recorded_pass import DeviceRates, RecordedPass, TakeBatch


class PassGraphs:
    """The recorded passes and the recorded update of a training.

    Args:
        take: adds the gradients of a micro-batch without waiting for the device.
        update: updates the weights from the gradients.
        parameters: the trained parameters; all of them get gradients.
        rates: the learning rates of the update.
        device: the device of the model.
        record: records a function.
    """

    def __init__(
        self,
        take: TakeBatch,
        update: Callable[[], None],
        parameters: Iterable[nn.Parameter],
        rates: DeviceRates,
        device: torch.device,
        record: Record,
    ) -> None:
        self._take = take
        self._update = update
        self._parameters = [*parameters]
        self._rates = rates
        self._device = device
        self._record = record
        self._gradients: list[Tensor] = []
        self._passes: dict[BatchShape, RecordedPass] = {}
        self._recorded_update: Recording | None = None

    def __len__(self) -> int:
        return len(self._passes)

    def forget(self) -> None:
        """Discard all recordings, and the memory that they hold."""
        self._passes.clear()
        self._recorded_update = None
        self._gradients = []

    def record(self, batches: Sequence[Batch]) -> None:
        """Record what a step over some micro-batches needs and is not recorded yet.

        Raises:
            Exception: it cannot be recorded.
        """
        missing = {batch.shape: batch for batch in batches if batch.shape not in self._passes}
        if not missing and self._recorded_update is not None:
            return
        self._lend_gradients()
        try:
            for shape, batch in missing.items():
                assert shape is not None
                recorded = RecordedPass(self._take, self._device, self._record, batch)
                self._passes[shape] = recorded
            if self._recorded_update is None:
                self._recorded_update = self._record(self._update_at_device_rates)
        finally:
            self._take_gradients_back()

    def step(self, batches: Sequence[Batch], target_tokens: int) -> Tensor:
        """Take a step whose parts are recorded, and return its loss.

        Args:
            batches: micro-batches on the CPU, each filled up to its shape.
            target_tokens: target tokens of the whole step.
        """
        assert self._recorded_update is not None
        self._lend_gradients()
        total = torch.zeros((), device=self._device)
        for batch in batches:
            assert batch.shape is not None
            total += self._passes[batch.shape](batch, target_tokens)
        self._rates.refresh()
        self._recorded_update.replay()
        self._take_gradients_back()
        return total

    def _update_at_device_rates(self) -> None:
        with self._rates.in_use():
            self._update()

    def _lend_gradients(self) -> None:
        """Give each parameter a gradient of zeros, at the same address in every step."""
        if not self._gradients:
            self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _take_gradients_back(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
