"""Options of the executor ``slurm``, and what submitit gets of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.api.options import Options

_WORD = r"^[\w.:@*&|()\[\]/-]+$"
_SIGNAL_SECONDS = 90
"""Seconds before the time limit at which Slurm warns a run, so that it can still report."""


class SlurmOptions(Options):
    """Options of ``slurm``."""

    partition: str | None = Field(None, pattern=_WORD)
    """Partition; by default Slurm's own choice."""
    gpus: int = Field(0, ge=0)
    """GPUs of each process of a run."""
    gpu_type: str | None = Field(None, pattern=_WORD)
    """Type of these GPUs, such as a100, if a partition has several."""
    cpus: int = Field(1, ge=1)
    """Processor cores of each process of a run."""
    memory: str | None = Field(None, pattern=r"^\d+[KMGT]?$")
    """Memory of each process of a run, such as 32G; by default Slurm's own choice."""
    time: str | None = Field(None, pattern=r"^\d+$|^(\d+-)?\d+(:\d+){0,2}$")
    """Time limit of a job in Slurm: 90 (minutes), 4:00:00 or 1-12:00:00 (days-hours)."""
    account: str | None = Field(None, pattern=_WORD)
    """Account that is charged."""
    qos: str | None = Field(None, pattern=_WORD)
    """Quality of service."""
    constraint: str | None = Field(None, pattern=_WORD)
    """Features that a node must have."""
    exclusive: bool = False
    """Reserve the whole node, so that nothing else disturbs the measurements of a run."""
    array_parallelism: int | None = Field(None, ge=1)
    """Runs of an array at work at once; by default as many as the cluster lets."""
    jobs: int = Field(1000, ge=1)
    """Runs in the queue at once; Slurm by default allows 1001 in an array."""
    detach: bool = False
    """Leave the jobs in the queue when the sweep is interrupted; otherwise they are cancelled."""
    setup: Path | None = None
    """Shell script that each job sources first, for example to load modules."""
    logs: Path | None = None
    """Folder of the logs; by default beside the results, in .slurm."""
    poll: float = Field(15, gt=0)
    """Seconds between two questions to Slurm about the state of the jobs."""

    def parameters(self, processes: int = 1) -> dict[str, Any]:
        """Return the parameters of submitit's SlurmExecutor.

        Args:
            processes: number of processes of a run; its job is one task, which starts them.
        """
        gpus = (
            f"{self.gpu_type}:{self.gpus * processes}" if self.gpu_type else self.gpus * processes
        )
        cpus = self.cpus * processes
        limit = seconds(self.time)
        return {
            "partition": self.partition,
            "gpus_per_node": gpus if self.gpus else None,
            "nodes": 1,
            "cpus_per_task": cpus,
            # Since version 22.05 srun does not take this from the job.
            "srun_args": [f"--cpus-per-task={cpus}"],
            "mem": _times(self.memory, processes),
            "time": self.time,
            "signal_delay_s": min(_SIGNAL_SECONDS, limit // 4) if limit else _SIGNAL_SECONDS,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "exclusive": self.exclusive or None,
            "array_parallelism": self.array_parallelism or self.jobs,
            "setup": [f"source {shlex.quote(str(self.setup.resolve()))}"] if self.setup else None,
            # submitit's default key is an error on clusters that know no such key.
            "wckey": None,
            "additional_parameters": {"requeue": True},
        }


def _times(memory: str | None, count: int) -> str | None:
    """Return a multiple of an amount of memory."""
    return memory and re.sub(r"^\d+", lambda number: str(int(number[0]) * count), memory)


def seconds(limit: str | None) -> int:
    """Return a time limit of Slurm in seconds; 0 if there is none."""
    if not limit:
        return 0
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in re.split(":", rest)]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, rest_seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, rest_seconds = parts
    else:  # minutes[:seconds]
        hours, minutes, rest_seconds = 0, *[*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest_seconds
