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
from harness.training.schedule import Step

_PROBING_SECONDS = 75.0
"""Seconds during which probes are started; later ones are left out."""


@dataclass(frozen=True)
class Forecast:
    """Time and memory of a run, as far as they are known before it starts.

    Attributes:
        seconds: time of the whole run; None if unknown.
        measured: true if an earlier run with another seed took that time; false if it is estimated.
        no_time: reason why the time is unknown.
        peak_bytes: estimated peak memory of training; None if unknown.
        no_memory: reason why the memory is unknown.
        available: bytes of the device that training can use; None if unknown.
    """

    seconds: float | None = None
    measured: bool = False
    no_time: str | None = None
    peak_bytes: int | None = None
    no_memory: str | None = None
    available: int | None = None

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
    """
    deadline = clock.seconds() + _PROBING_SECONDS
    earlier = earlier_seconds(cell_plans, results)
    kinds: dict[str, list[CellPlan]] = {}
    for plan in cell_plans:
        if not plan.cell.done:
            kinds.setdefault(plan.kind, []).append(plan)
    batches = _batches({kind: plans[0] for kind, plans in kinds.items()})
    memory = _estimate_memory(
        {kind: (plans[0].cell.spec, batches[kind].longest) for kind, plans in kinds.items()},
        on_progress,
    )
    probes = Probes(deadline, on_progress)
    forecasts: dict[str, Forecast] = {}
    for kind, plans in kinds.items():
        peak, no_memory, spec = memory[kind]
        available = total_bytes(choose_device(spec.device)) if here else None
        untimed = Forecast(peak_bytes=peak, no_memory=no_memory, available=available)
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


def _estimate_memory(
    kinds: Mapping[str, tuple[RunSpec, Step]], on_progress: OnProgress
) -> dict[str, RunMemory]:
    """Return the estimated memory of training by kind of cell."""
    memory = {}
    with MemoryEstimator(LIMIT_SECONDS) as estimate:
        for kind, (spec, longest) in kinds.items():
            on_progress(f"estimating the memory of {spec.recipe} on {spec.backbone}")
            memory[kind] = estimate(spec, longest)
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
