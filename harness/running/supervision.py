"""Processes of one run, started by torch's own launcher, and started again after failures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

from harness.interrupts import MAIN_IS_SILENT
from harness.running.memory_kills import memory_kills

OnRestart: TypeAlias = Callable[[str], None]
FAILED = 1
"""Exit status of the first process if the run failed."""
TIME_LIMITS: dict[int, str] = {
    signal.SIGALRM: "It reached its time limit.",
    signal.SIGUSR2: "It reached the time limit of the batch system.",
}
"""Signals that end a run because its time is over -> message."""


@dataclass(frozen=True)
class GroupFailure:
    """The process of a group that failed first, which ended the others.

    Attributes:
        rank: its number.
        status: its exit status; if a signal killed it, minus the number of the signal.
        stopped: whether the launcher got the signal, and ended the group.
        out_of_memory: whether the kernel killed a process for memory meanwhile.
    """

    rank: int
    status: int
    stopped: bool = False
    out_of_memory: bool = False

    @property
    def message(self) -> str:
        """The failure in a sentence."""
        if self.status == MAIN_IS_SILENT:
            return "Process 0 did not answer the others."
        if self.status >= 0:
            return f"Process {self.rank} ended with status {self.status}."
        if self.stopped and -self.status in TIME_LIMITS:
            return TIME_LIMITS[-self.status]
        name = signal.Signals(-self.status).name
        if self.stopped:
            return f"The launcher was stopped by {name}."
        why = ", because memory ran out" if self.out_of_memory else ""
        return f"Process {self.rank} was killed by {name}{why}."

    @property
    def may_pass(self) -> bool:
        """True if a restart can help; it cannot after Ctrl-C or a mistake of the user."""
        return not self.stopped and (self.status < 0 or self.status in (FAILED, MAIN_IS_SILENT))


def thread_share(processes: int) -> int | None:
    """Return the threads that each of several processes gets; None if that is as for one process.

    The variable OMP_NUM_THREADS counts for one process as for several.
    """
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // processes)


def supervise(
    command: Sequence[str], processes: int, max_restarts: int, on_restart: OnRestart
) -> GroupFailure | None:
    """Execute a Python command in several processes, and again if it fails and may succeed.

    torch's launcher can restart a group by itself. It does not say which process failed, though,
    and would repeat a mistake of the user as well.

    Args:
        command: arguments of the Python interpreter.
        processes: the number of processes.
        max_restarts: the largest number of restarts.
        on_restart: is called with a message before each restart.

    Returns:
        The last failure, or None if all processes ended well.
    """
    for restart in range(1, max_restarts + 2):
        failure = _execute(command, processes)
        if failure is None or not failure.may_pass or restart > max_restarts:
            break
        on_restart(
            f"{failure.message} Restart {restart} of {max_restarts}: the run resumes from its "
            "last saved state."
        )
    return failure


def _execute(command: Sequence[str], processes: int) -> GroupFailure | None:
    import logging
    import uuid

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The first process reports errors; the launcher would print its own table of them too.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    if threads := thread_share(processes):
        os.environ["OMP_NUM_THREADS"] = str(threads)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    killed_before = memory_kills()
    for number in TIME_LIMITS:  # torch itself handles Ctrl-C and SIGTERM in the same way.
        signal.signal(number, _stop_group)
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stop:
        return GroupFailure(0, -int(stop.sigval), stopped=True)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        out_of_memory = failure.exitcode == -signal.SIGKILL and memory_kills() > killed_before
        return GroupFailure(rank, failure.exitcode, out_of_memory=out_of_memory)
    return None


def _stop_group(number: int, frame: FrameType | None) -> None:
    """Send the signal to all processes of the group, and end it."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    name = signal.Signals(number)
    raise SignalException(f"The launcher got {name.name}.", sigval=name)
