"""What the runs of a sweep will take: memory from shapes, time from earlier runs or probes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple, Self

from harness import clock
from harness.api.plugins import installed
from harness.costs.fit import resolve_checkpointing, total_bytes
from harness.costs.memory_estimate import try_to_estimate
from harness.errors import HarnessError
from harness.interrupts import ignore_sigint_in_children
from harness.model.composition import compose
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
from harness.training.schedule import Step
from harness.training.trainer import choose_device

_PROBING_SECONDS = 75.0
"""After so many no further probe is started."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take, as far as that can be known before it starts.

    Attributes:
        seconds: of the whole run; None if unknown.
        measured: whether these are an earlier run's with another seed, and not an estimate.
        no_time: why the time is unknown.
        peak_bytes: memory in training, predicted; None if unknown.
        no_memory: why the memory is unknown.
        available: bytes that its device has; None if unknown.
    """

    seconds: float | None = None
    measured: bool = False
    no_time: str | None = None
    peak_bytes: int | None = None
    no_memory: str | None = None
    available: int | None = None

    @property
    def too_large(self) -> bool:
        """Whether it is known that the run will not fit."""
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
    """Return cell's id -> what it will take; cells that are done are left out.

    Cells that differ only in their seed are predicted and probed once.

    Args:
        cell_plans: all cells.
        results: folder of all runs; what took as many steps there is known, and not probed.
        here: whether the runs will be on this machine.
        unprobed: why nothing is to be probed; None to do it.
        on_progress: called with what is done next.
    """
    deadline = clock.seconds() + _PROBING_SECONDS
    earlier = earlier_seconds(cell_plans, results)
    kinds: dict[str, list[CellPlan]] = {}
    for each in cell_plans:
        if not each.cell.done:
            kinds.setdefault(each.kind, []).append(each)
    batches = _batches({kind: alike[0] for kind, alike in kinds.items()})
    predicted = _predict(
        {k: (a[0].cell.spec, batches[k].longest) for k, a in kinds.items()}, on_progress
    )
    probes = Probes(deadline, on_progress)
    found: dict[str, Forecast] = {}
    for kind, alike in kinds.items():
        first, (peak, no_memory, spec) = alike[0], predicted[kind]
        available = total_bytes(choose_device(spec.device)) if here else None
        known = Forecast(peak_bytes=peak, no_memory=no_memory, available=available)
        guess = known
        if any(each.cell.id not in earlier for each in alike):
            reason = "it does not fit into memory" if known.too_large else unprobed
            guess = _timed(known, first, spec, batches[kind], probes, reason)
        for each in alike:
            seconds = earlier.get(each.cell.id)
            measured = replace(known, seconds=seconds, measured=True)
            found[each.cell.id] = guess if seconds is None else measured
    return found


def _batches(kinds: Mapping[str, CellPlan]) -> dict[str, ProbeBatches]:
    """Return kind -> batches of its data; recipes on equal data share them."""
    made: dict[tuple[object, ...], ProbeBatches] = {}
    found = {}
    for kind, each in kinds.items():
        train = each.cell.spec.train
        key = each.backbone.reference, id(each.splits), train.batch_size, train.accumulation
        if key not in made:
            made[key] = batches_of(each)
        found[kind] = made[key]
    return found


class EstimatedRun(NamedTuple):
    """Peak memory in bytes, or why it is unknown, and the spec with its settings settled."""

    peak_bytes: int | None
    reason: str | None
    spec: RunSpec


def _predict(
    kinds: Mapping[str, tuple[RunSpec, Step]], on_progress: OnProgress
) -> dict[str, EstimatedRun]:
    """Return kind -> the peak memory of its training.

    In a process of its own: a compressor may be anyone's and end it, and code that trains on a GPU
    would take some of it, which the runs would then lack.
    """
    found = {}
    with MemoryEstimator() as predictor:
        for kind, (spec, longest) in kinds.items():
            on_progress(f"predicting the memory of {spec.recipe} on {spec.backbone}")
            found[kind] = predictor(spec, longest)
    return found


class MemoryEstimator:
    """A process that predicts; one that dies or does not answer is followed by another."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, spec: RunSpec, longest: Step) -> EstimatedRun:
        """Predict the peak memory of a run from the step with its longest batch."""
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            with ignore_sigint_in_children():
                self._process.start()
            theirs.close()
        reason = f"predicting it took longer than {LIMIT_SECONDS:g} seconds"
        try:
            self._pipe.send((spec, longest))
            if self._pipe.poll(LIMIT_SECONDS):
                answer: EstimatedRun = self._pipe.recv()
                return answer
        except (EOFError, ConnectionError):
            reason = "the process that predicted it died"
        self._end()
        return EstimatedRun(None, reason, spec)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, ConnectionError):  # The parent is done, or is gone.
        while True:
            pipe.send(predict(*pipe.recv()))


def predict(spec: RunSpec, longest: Step) -> EstimatedRun:
    """Predict the peak memory of a run from the step with its longest batch."""
    plugins = installed()
    try:
        backbone = plugins.backbone(spec.backbone)
        recipe = plugins.recipe(spec.recipe)
        spec = resolve_checkpointing(spec, backbone, recipe, longest)
        skeleton = compose(backbone.skeleton(), backbone, recipe)
        memory, reason = try_to_estimate(spec, backbone, recipe, skeleton, longest)
    except Exception as error:
        # A recipe that cannot be is a result of the sweep, and no reason not to start it.
        return EstimatedRun(None, _first_line(error), spec)
    return EstimatedRun(memory.peak_bytes if memory else None, reason, spec)


def _timed(
    known: Forecast,
    each: CellPlan,
    spec: RunSpec,
    batches: ProbeBatches,
    probes: Probes,
    unprobed: str | None,
) -> Forecast:
    if unprobed:
        return replace(known, no_time=unprobed)
    try:
        baseline = None
        costs = probes.costs(spec, batches)
        if spec.probe.baseline == "probe":
            baseline = probes.costs(spec.model_copy(update={"recipe": BASELINE}), batches)
    except Exception as error:
        return replace(known, no_time=_first_line(error))
    return replace(known, seconds=run_seconds(each, spec, batches, costs, baseline))


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, HarnessError) else str(error)
    return text.partition("\n")[0] or type(error).__name__
