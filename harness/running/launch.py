"""Launch of one run in several processes, and its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.interrupts import MAIN_IS_SILENT
from harness.records.run_folder import SPEC
from harness.running.supervision import FAILED, GroupFailure, OnRestart, supervise

if TYPE_CHECKING:
    from harness.records.report import Status
    from harness.spec.run_spec import RunSpec

_ENGINES = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
_ANNOUNCEMENT = "HARNESS_LAUNCHER"
"""File in which the first process tells this launcher the id of its run."""
_STOPPED, _WOULD_REPEAT = 130, 77
"""Exit statuses of the first process: Ctrl-C, and a failure that a restart would only repeat."""


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
    return _WOULD_REPEAT if status == "nan" and is_supervised() else FAILED


@dataclass(frozen=True)
class GroupExit:
    """End of a run in several processes.

    Attributes:
        failure: the failure that ended them; None if all of them ended well.
        run: the id of the run; None if it ended before it had one.
        report: the folder of the report, if the launcher wrote it because the first process could
            not.
    """

    failure: GroupFailure | None
    run: str | None = None
    report: Path | None = None

    def status(self) -> int:
        """Return the exit status of the command that started the processes.

        Raises:
            HarnessError: a process died, and the run ended with it; the report says so.
        """
        failure = self.failure
        if failure is None:
            return 0
        silent = failure.status == MAIN_IS_SILENT
        if self.report is None and failure.rank == 0 and failure.status > 0 and not silent:
            return FAILED if failure.status == _WOULD_REPEAT else failure.status
        if failure.stopped:
            return 128 - failure.status
        report = f"\nReport: {self.report}" if self.report else ""
        raise HarnessError(
            f"{failure.message} The run ended with it.{report}",
            "Repeat the same command: it resumes from the last saved state.",
        )


def launch_run(
    processes: int,
    spec: RunSpec,
    results: Path,
    arguments: Sequence[str] = (),
    max_restarts: int = 0,
    on_restart: OnRestart = lambda message: None,
) -> GroupExit:
    """Execute ``harness run`` in several processes of this machine; see ``launch``.

    Args:
        processes: the number of processes.
        spec: the settings, with every default filled in.
        results: the folder of all runs.
        arguments: further arguments of the command.
        max_restarts: largest number of restarts.
        on_restart: is called with a message before each restart.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, SPEC)
        file.write_text(spec.to_toml(), "utf-8")
        # -P: the current folder may hold modules named like the harness's.
        command = ["-P", "-m", "harness", "run", str(file), "--out", str(results), *arguments]
        return launch(command, processes, spec, results, max_restarts, on_restart)


def launch(
    command: Sequence[str],
    processes: int,
    spec: RunSpec,
    results: Path,
    max_restarts: int,
    on_restart: OnRestart,
) -> GroupExit:
    """Execute a run in several processes of this machine, and wait for them.

    Args:
        command: arguments of the Python interpreter, with which each process takes part in the run.
        processes: the number of processes; each gets a GPU, or a share of the processor's cores.
        spec: the settings, with every default filled in.
        results: the folder of all runs.
        max_restarts: number of times that all processes are started again after one of them was
            killed, ran out of memory, or did not answer. The run resumes.
        on_restart: is called with a message before each restart.

    Raises:
        HarnessError: this machine has fewer GPUs than processes.
    """
    require_gpus(processes, spec.device)
    with tempfile.TemporaryDirectory() as folder:
        announcement = Path(folder, "run")
        os.environ[_ANNOUNCEMENT] = str(announcement)
        try:
            failure = supervise(command, processes, max_restarts, on_restart)
        finally:
            del os.environ[_ANNOUNCEMENT]
        run = announcement.read_text("utf-8") if announcement.exists() else None
    report = None
    if failure and run is not None and (results / f".{run}.lock").exists():
        # The first process could not finish it.
        from harness.running.failure import finish_for

        report = finish_for(failure, run, results, spec)
    return GroupExit(failure, run, report)


def require_gpus(processes: int, device: str) -> None:
    """Check that this machine has a GPU for each process, if it has any.

    Args:
        processes: the number of processes.
        device: the device of the run's spec.

    Raises:
        HarnessError: it has fewer.
    """
    if processes == 1 or device == "cpu":
        return
    import torch

    count = torch.cuda.device_count()
    if 0 < count < processes:
        raise HarnessError(
            f"{processes} processes need as many GPUs, and this machine has {count}.",
            f"Start at most {count} processes on each machine: --nproc {count}",
        )
