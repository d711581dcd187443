"""Set-up of a run, equal in all its processes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.costs.fit import resolve_checkpointing
from harness.costs.parallel import Parallel, choose_parallel
from harness.measurement.probe import FrozenSchedule, freeze
from harness.running.inputs import Inputs
from harness.training.processes import Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.schedule import Schedule


@dataclass(frozen=True)
class Setup:
    """Parts of a run that every process derives from the spec.

    Attributes:
        run: the run, with every ``auto`` setting resolved.
        inputs: the data and the metrics.
        schedule: the order of the training examples.
        frozen: the steps that the probe measures.
        parallel: the way in which the run's processes share the model; known in the first one.
    """

    run: ResolvedRun
    inputs: Inputs
    schedule: Schedule
    frozen: FrozenSchedule
    parallel: Parallel

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return planned_steps(self.schedule, self.run)


def set_up(
    inputs: Inputs, micro_batch: int | None = None, processes: Processes | None = None
) -> Setup:
    """Order the examples, choose the probe's steps, and decide what the memory estimate decides.

    Args:
        inputs: the run's inputs.
        micro_batch: number of examples in a micro-batch; None takes the spec's.
        processes: the processes that train together, in the first of them; the others learn from
            it how they share the model.

    Raises:
        HarnessError: the settings ask for a parallel training that cannot be.
    """
    run = inputs.run.with_micro_batch(micro_batch) if micro_batch else inputs.run
    schedule = schedule_of(inputs, run)
    frozen = freeze(schedule, run.spec.probe)
    frozen = replace(frozen, total_steps=planned_steps(schedule, run))
    run = resolve_checkpointing(run, frozen.longest)
    parallel = choose_parallel(run, frozen.longest, processes) if processes else Parallel()
    return Setup(run, inputs, schedule, frozen, parallel)


def schedule_of(inputs: Inputs, run: ResolvedRun) -> Schedule:
    """Return the order of the training examples."""
    settings = run.spec.train
    return Schedule(
        inputs.train.examples, settings.batch_size, settings.accumulation, run.spec.seed
    )


def planned_steps(schedule: Schedule, run: ResolvedRun) -> int:
    """Return the optimizer steps of the whole training."""
    return schedule.planned_steps(run.spec.train.epochs, run.spec.train.max_steps)
