"""Windows of a measured process replay recorded steps, which are recorded just before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.measurement.probe import freeze
from harness.measurement.process import _TrainingService
from harness.spec.run_spec import RunSpec
from harness.training.engines import attention
from harness.training.recording import plan_shapes, record_steps
from harness.training.schedule import Schedule


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


@pytest.fixture
def service(make_spec: Callable[..., RunSpec], schedule: Schedule) -> _TrainingService:
    """Trains with steps that are recorded."""
    plain = make_spec("full")
    packed = plain.train.model_copy(update={"engine": "packed"})
    spec = plain.model_copy(update={"train": packed})
    frozen = freeze(schedule, spec.probe)
    service = _TrainingService()
    work = frozen.steps, frozen.longest, frozen.calibration, None, frozen.sizes
    service.prepare(spec, *work)
    record_steps(service.trainer, Rerun)
    plan_shapes(service.trainer, frozen.sizes, 100)
    return service


def test_windows_replay_what_was_recorded_before_the_first(service: _TrainingService) -> None:
    graphs = service.trainer.graphs
    assert graphs is not None
    assert graphs.recorded == 0  # A measurement of memory alone needs none.
    service.window(0, 1)
    shapes, replays = graphs.recorded, graphs.replays
    assert shapes
    service.window(0, 3)
    assert (graphs.recorded, graphs.replays) == (shapes, replays + 3)


def test_windows_after_a_measurement_of_memory_are_recorded_again(
    service: _TrainingService,
) -> None:
    graphs = service.trainer.graphs
    assert graphs is not None
    service.window(0, 1)
    shapes = graphs.recorded
    service.memory(1)
    service.window(0, 1)
    assert graphs.recorded >= shapes
    replays = graphs.replays
    service.window(0, 3)
    assert graphs.replays == replays + 3


def test_windows_are_measured_on_the_engine_that_a_check_leaves(
    make_spec: Callable[..., RunSpec], schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(attention._PerSequence, "apply", fail)
    plain = make_spec("full")
    checked = plain.train.model_copy(update={"engine": "packed", "check_engine": "on"})
    frozen = freeze(schedule, plain.probe)
    service = _TrainingService()
    work = frozen.steps, frozen.longest, frozen.calibration, None, frozen.sizes
    service.prepare(plain.model_copy(update={"train": checked}), *work)
    assert service.engine() == "padded, not packed: RuntimeError: no kernel image is available"
    service.window(0, 1)
