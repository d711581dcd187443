"""The process of a run as one of several that a launcher started."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.api.plugins import installed
from harness.running.launch import is_supervised
from harness.running.workers import run_worker
from harness.spec.run_spec import RunSpec
from harness.training.failing import LostProcessError, TerminatedError
from harness.training.processes import Processes, join

ResultT = TypeVar("ResultT")


def in_group(
    spec: RunSpec, work: Callable[[Processes], ResultT], micro_batch: int | None = None
) -> ResultT:
    """Join the other processes; do the work of the first one, or take part in it.

    Args:
        spec: the settings of the run.
        work: is called with the group in the first process.
        micro_batch: see ``harness.running.run.Run``.

    Returns:
        What ``work`` returns, in the first process.

    Raises:
        SystemExit: in all other processes, when the work is done; also in the first one if another
            process ended and the launcher will report it.
    """
    try:
        with join(spec.device) as processes:
            if processes.rank == 0:
                return work(processes)
            run_worker(spec, installed(), processes, micro_batch)
    except (LostProcessError, TerminatedError) as error:
        if is_supervised():
            raise SystemExit(1) from error  # The launcher reports the process at fault.
        raise
    raise SystemExit(0)  # The first process alone has a report.
