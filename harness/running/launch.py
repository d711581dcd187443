"""Launch of one run in several processes, by torch's own launcher, and restarts after failures."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.interrupts import MAIN_IS_SILENT
from harness.records.run_folder import SPEC
from harness.running.memory_kills import memory_kills

if TYPE_CHECKING:
    from harness.records.report import Status
    from harness.spec.run_spec import RunSpec

_ENGINES = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
_ANNOUNCEMENT = "HARNESS_LAUNCHER"
"""File in which the first process tells this launcher the id of its run."""
_FAILED, _STOPPED, _WOULD_REPEAT = 1, 130, 77
"""Exit statuses of the first process: a failed run, Ctrl-C, and a failure that a restart would
only repeat."""


def is_launched() -> bool:
    """Return whether a launcher (torchrun, accelerate) started this process as one of a group.

    Raises:
        HarnessError: the launcher's own configuration asks for sharding of the model.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return False
    for engine in _ENGINES if os.environ["RANK"] == "0" else ():
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("true", "1"):
            raise HarnessError(
                f"A run shards by itself, and the accelerate configuration asks for {engine}.",
                "Choose plain multi-GPU in it (distributed_type: MULTI_GPU), and "
                "--set train.parallel=fsdp.",
            )
    return True


def is_supervised() -> bool:
    """Return whether ``launch`` started this process; it writes the report if it has to."""
    return _ANNOUNCEMENT in os.environ


def is_restarted() -> bool:
    """Return whether this process belongs to a group that was started again after a failure."""
    if is_supervised():
        return Path(os.environ[_ANNOUNCEMENT]).exists()
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def announce(run: str) -> None:
    """Tell the launcher the id of the run that this process has begun to write, if it wants it."""
    if is_supervised():
        Path(os.environ[_ANNOUNCEMENT]).write_text(run, "utf-8")


def failure_status(status: Status) -> int:
    """Return the exit status of a failed run."""
    if status == "interrupted":
        return _STOPPED
    return _WOULD_REPEAT if status == "nan" and is_supervised() else _FAILED


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
        name = signal.Signals(-self.status).name
        if self.stopped:
            return f"The launcher was stopped by {name}."
        why = ", because memory ran out" if self.out_of_memory else ""
        return f"Process {self.rank} was killed by {name}{why}."

    @property
    def may_pass(self) -> bool:
        """True if a restart can help; it cannot after Ctrl-C or a mistake of the user."""
        return not self.stopped and (self.status < 0 or self.status in (_FAILED, MAIN_IS_SILENT))


def launch(
    processes: int,
    spec: RunSpec,
    results: Path,
    arguments: Sequence[str] = (),
    max_restarts: int = 0,
    on_restart: Callable[[str], None] = lambda message: None,
) -> int:
    """Execute ``harness run`` in several processes of this machine, and wait for them.

    Args:
        processes: the number of processes; each gets a GPU, or a share of the processor's cores.
        spec: the settings, with every default filled in.
        results: the folder of all runs.
        arguments: further arguments of the command.
        max_restarts: number of times that all processes are started again after one of them was
            killed, ran out of memory, or did not answer. The run resumes.
        on_restart: is called with a message before each restart.

    Returns:
        The exit status of the first process.

    Raises:
        HarnessError: a process died, and the run ended with it; the report says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, announcement = Path(folder, SPEC), Path(folder, "run")
        file.write_text(spec.to_toml(), "utf-8")
        os.environ[_ANNOUNCEMENT] = str(announcement)
        # -P: the current folder may hold modules named like the harness's.
        command = ["-P", "-m", "harness", "run", str(file), "--out", str(results), *arguments]
        try:
            failure = supervise(command, processes, max_restarts, on_restart)
        finally:
            del os.environ[_ANNOUNCEMENT]
        run = announcement.read_text("utf-8") if announcement.exists() else None
    if failure is None:
        return 0
    report = ""
    if run is not None and (results / f".{run}.lock").exists():
        # The first process could not finish it.
        from harness.running.failure import finish_for

        report = f"\nReport: {finish_for(failure, run, results, spec)}"
    elif failure.rank == 0 and failure.status > 0 and failure.status != MAIN_IS_SILENT:
        return _FAILED if failure.status == _WOULD_REPEAT else failure.status
    if failure.stopped:
        return 128 - failure.status
    raise HarnessError(
        f"{failure.message} The run ended with it.{report}",
        "Repeat the same command: it resumes from the last saved state.",
    )


def supervise(
    command: Sequence[str], processes: int, max_restarts: int, on_restart: Callable[[str], None]
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
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
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
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stop:
        return GroupFailure(0, -int(stop.sigval), stopped=True)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        out_of_memory = failure.exitcode == -signal.SIGKILL and memory_kills() > killed_before
        return GroupFailure(rank, failure.exitcode, out_of_memory=out_of_memory)
    return None
