"""Forecast of a sweep: memory of runs from shapes, time from earlier runs or from probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import clock
from harness.costs.estimate_process import MemoryEstimator, RunMemory
from harness.costs.fit import total_bytes
from harness.errors import first_line
from harness.spec.run_spec import BASELINE, RunSpec
from harness.sweeps.preview import CellPlan, earlier_seconds
from harness.sweeps.probes import (
    LIMIT_SECONDS,
    OnProgress,
    ProbeBatches,
    Probes,
    batches_of,
    run_seconds,
)
from harness.training.resolved_run import choose_device

_PROBING_SECONDS = 75.0
"""Seconds during which probes are started; later ones are left out."""


@dataclass(frozen=True)
class Forecast:
    """Time and memory of a run, as far as they are known before it starts.

    Attributes:
        seconds: time of the whole run; None if unknown.
        measured: true if an earlier run with another seed took that time; false if it is estimated.
        no_time: reason why the time is unknown.
        peak_bytes: estimated peak memory of training, of each process; None if unknown.
        no_memory: reason why the memory is unknown.
        available: bytes of the device that training can use, of each process; None if unknown.
        processes: number of processes.
        divided: true if the processes will divide the model among themselves.
    """

    seconds: float | None = None
    measured: bool = False
    no_time: str | None = None
    peak_bytes: int | None = None
    no_memory: str | None = None
    available: int | None = None
    processes: int = 1
    divided: bool = False

    @property
    def too_large(self) -> bool:
        """Return whether the run is known not to fit into memory."""
        if self.peak_bytes is None or self.available is None:
            return False
        return self.peak_bytes > self.available


def forecast(
    cell_plans: Sequence[CellPlan],
    results: Path,
    *,
    here: bool,
    unprobed: str | None,
    on_progress: OnProgress,
    processes: int = 1,
) -> dict[str, Forecast]:
    """Return the forecasts by cell id; cells that are done are left out.

    Cells that differ only in their seed are estimated and probed once.

    Args:
        cell_plans: all cells.
        results: folder of all runs. If it holds a run of the recipe with as many steps, that run's
            time is taken and the recipe is not probed.
        here: true if the runs will be on this machine.
        unprobed: reason why nothing is probed; None to probe.
        on_progress: is called with the name of each step before it starts.
        processes: number of processes of each run. A run of several is not probed.
    """
    deadline = clock.seconds() + _PROBING_SECONDS
    earlier = earlier_seconds(cell_plans, results, processes)
    if processes > 1:
        unprobed = "a probe is one process, and the run will be several"
    kinds: dict[str, list[CellPlan]] = {}
    for plan in cell_plans:
        if not plan.cell.done:
            kinds.setdefault(plan.kind, []).append(plan)
    batches = _batches({kind: plans[0] for kind, plans in kinds.items()})
    specs = {kind: plans[0].cell.spec for kind, plans in kinds.items()}
    rooms = {kind: _room(spec, processes) if here else None for kind, spec in specs.items()}
    memory = _estimate_memory(specs, batches, rooms, processes, on_progress)
    probes = Probes(deadline, on_progress)
    forecasts: dict[str, Forecast] = {}
    for kind, plans in kinds.items():
        peak, no_memory, spec, divided = memory[kind]
        untimed = Forecast(
            peak_bytes=peak,
            no_memory=no_memory,
            available=rooms[kind],
            processes=processes,
            divided=divided,
        )
        probed = untimed
        if any(plan.cell.id not in earlier for plan in plans):
            reason = "it does not fit into memory" if untimed.too_large else unprobed
            probed = _timed(untimed, plans[0], spec, batches[kind], probes, reason)
        for plan in plans:
            seconds = earlier.get(plan.cell.id)
            measured = replace(untimed, seconds=seconds, measured=True)
            forecasts[plan.cell.id] = probed if seconds is None else measured
    return forecasts


def _batches(kinds: Mapping[str, CellPlan]) -> dict[str, ProbeBatches]:
    """Return the batches by kind of cell; recipes on equal data share them."""
    shared: dict[tuple[object, ...], ProbeBatches] = {}
    batches = {}
    for kind, plan in kinds.items():
        train = plan.cell.spec.train
        key = plan.backbone.reference, id(plan.splits), train.batch_size, train.accumulation
        if key not in shared:
            shared[key] = batches_of(plan)
        batches[kind] = shared[key]
    return batches


def _room(spec: RunSpec, processes: int) -> int | None:
    """Return the bytes that training can use in each process; those of a CPU share its memory."""
    device = choose_device(spec.device)
    room = total_bytes(device)
    return room // processes if room and device.type == "cpu" else room


def _estimate_memory(
    specs: Mapping[str, RunSpec],
    batches: Mapping[str, ProbeBatches],
    rooms: Mapping[str, int | None],
    processes: int,
    on_progress: OnProgress,
) -> dict[str, RunMemory]:
    """Return the estimated memory of training by kind of cell."""
    memory = {}
    with MemoryEstimator(LIMIT_SECONDS) as estimate:
        for kind, spec in specs.items():
            on_progress(f"estimating the memory of {spec.recipe} on {spec.backbone}")
            memory[kind] = estimate(spec, batches[kind].longest, processes, rooms[kind])
    return memory


def _timed(
    untimed: Forecast,
    plan: CellPlan,
    spec: RunSpec,
    batches: ProbeBatches,
    probes: Probes,
    unprobed: str | None,
) -> Forecast:
    """Add the time estimated from probes, or the reason why there is none."""
    if unprobed:
        return replace(untimed, no_time=unprobed)
    try:
        baseline = None
        costs = probes.costs(spec, batches)
        if spec.probe.baseline == "probe":
            baseline = probes.costs(spec.model_copy(update={"recipe": BASELINE}), batches)
    except Exception as error:
        return replace(untimed, no_time=first_line(error))
    return replace(untimed, seconds=run_seconds(plan, spec, batches, costs, baseline))
